"""`python -m kpatrol` and the `kpatrol` command."""

import sys


def main() -> None:
    """Entry point. A Ctrl-C that comes before all is read is no crash, and no verdict (1) either."""
    try:
        from kpatrol import cli
    except KeyboardInterrupt:
        sys.stderr.write("Error: interrupted\n")
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
