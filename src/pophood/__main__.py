"""`python -m pophood` is the `pophood` command."""

from pophood.cli import main

if __name__ == "__main__":
    main()
