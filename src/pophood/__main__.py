"""Run the `pophood` command as `python -m pophood` (small: an entry point)."""

from pophood.cli import main

if __name__ == "__main__":
    main()
