"""The command line: parses, prints, decides nothing. One file per command; `app.py` finds and runs them."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `pophood` and leave with its exit code: 0 done, 1 failed, 2 asked wrongly, 130 Ctrl-C."""
    try:
        from pophood.cli.app import pophood

        pophood.main(prog_name="pophood")
    except KeyboardInterrupt:  # while the program was still starting
        sys.exit(130)
