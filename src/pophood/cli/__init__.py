"""The command line: it parses and prints, and the library does the work."""

from __future__ import annotations

import gc
import sys

# New objects between two searches for reference cycles. Python's 700 would have a start, which creates
# 100,000 objects that stay, looked through again and again: a tenth of its time.
OBJECTS_PER_SEARCH = 20_000


def main() -> None:
    """Run `pophood` and exit with its code: 0 success, 1 failure, 2 usage error, 130 Ctrl-C."""
    gc.set_threshold(OBJECTS_PER_SEARCH, *gc.get_threshold()[1:])
    try:
        from pophood.cli.app import pophood

        pophood.main(prog_name="pophood")
    except KeyboardInterrupt:  # during startup, before `Verbs.main` handles it
        sys.exit(130)
    finally:
        gc.freeze()  # the end of a process looks through all objects for cycles, too
