"""What ends a command without an answer."""

import click

CANNOT_TELL = 2


class Trouble(click.ClickException):
    """One clear line on standard error, and exit code 2."""

    exit_code = CANNOT_TELL
