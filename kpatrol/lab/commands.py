"""The door to the machine's own programs: run one to its end, or say which one is missing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from kpatrol.lab.errors import CommandFailed, MissingProgram

# Debian's name of the package that brings each program.
PACKAGES: Mapping[str, str] = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mvn": "maven",
    "java": "openjdk-17-jre-headless",
    "unbound": "unbound",
}


def find_program(name: str) -> str | None:
    """The absolute path of a program. sbin is looked into as well: a plain user's PATH on Debian lacks it."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


def require_programs(*names: str) -> None:
    """Raise `MissingProgram`, naming every absent program and its Debian package at once."""
    absent = [name for name in names if find_program(name) is None]
    if absent:
        packages = " ".join(sorted({PACKAGES.get(name, name) for name in absent}))
        raise MissingProgram(f"not installed: {', '.join(absent)} (Debian and Ubuntu: apt-get install {packages})")


def run_command(argv: Sequence[str], *, stdin: str = "", timeout_s: float = 30.0) -> str:
    """Run a program to its end and return its standard output; `CommandFailed` carries its own words."""
    program = find_program(argv[0])
    if program is None:
        raise MissingProgram(f"not installed: {argv[0]} (package {PACKAGES.get(argv[0], argv[0])})")
    try:
        done = subprocess.run(
            [program, *argv[1:]], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise CommandFailed(f"{' '.join(argv)}: no end within {timeout_s:g} s") from late
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"{' '.join(argv)}: exit code {done.returncode}: {said}")
    return done.stdout
