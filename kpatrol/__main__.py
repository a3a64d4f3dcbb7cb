"""`python -m kpatrol` and the `kpatrol` command."""

from kpatrol.cli import main

if __name__ == "__main__":
    main()
