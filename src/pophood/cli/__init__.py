"""The command line: it parses and prints, and the library does the work."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `pophood` and exit with its code: 0 success, 1 failure, 2 usage error, 130 Ctrl-C."""
    try:
        from pophood.cli.app import pophood

        pophood.main(prog_name="pophood")
    except KeyboardInterrupt:  # during startup, before `Verbs.main` handles it
        sys.exit(130)
