"""What can go wrong with the machine under a lab. Every message says what was found and what would help."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot go on; the message is meant for the person who started it."""


class MissingProgram(LabError):
    """A program of the machine is not installed."""


class CommandFailed(LabError):
    """A command of the machine (ip, nft, mvn, ...) ended with an error."""
