"""Which kind of network this machine lets us build. Found out by building a small one, not by asking who we are."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from kpatrol.lab.commands import find_program, require_programs, run_command
from kpatrol.lab.errors import CommandFailed, LabError
from kpatrol.lab.netplan import Mode
from kpatrol.lab.state import USERNS_VARIABLE

_TRIAL = """set -e
ip link set lo up
ip link add kptrial type bridge
ip link add kptriala type veth peer name kptrialb
nft -f - <<'END'
table inet kptrial {
  chain arriving {
    type filter hook prerouting priority -350; policy accept;
    numgen random mod 10000 < 1 counter drop
  }
}
END
"""
_IN_USERNS = ("--user", "--map-root-user", "--mount")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """The mode, and why it is this one and not a better one."""

    mode: Mode
    reason: str


def detect_mode(environment: Mapping[str, str]) -> Detected:
    """Try root, then a user namespace. Raises `MissingProgram` on Linux when iproute2 or nftables are absent.

    `userns` means: the lab has to start itself again by `enter_userns`, except where it is inside already.
    """
    if not sys.platform.startswith("linux"):
        return Detected(mode="loopback", reason=f"{sys.platform} has no network namespaces")
    require_programs("ip", "nft", "nsenter", "unshare")
    if environment.get(USERNS_VARIABLE):
        return Detected(mode="userns", reason="inside a user namespace of its own")
    as_root = _refusal(()) if os.geteuid() == 0 else "not root"
    if as_root is None:
        return Detected(mode="root", reason="root may make network namespaces")
    in_userns = _refusal(_IN_USERNS)
    if in_userns is None:
        return Detected(mode="userns", reason=f"{as_root}; user namespaces are allowed")
    return Detected(mode="loopback", reason=f"{as_root}; and in a user namespace: {in_userns}")


def _refusal(options: Sequence[str]) -> str | None:
    """What the machine says against it; None when the trial succeeds."""
    try:
        run_command(["unshare", *options, "--net", "sh", "-s"], stdin=_TRIAL, timeout_s=10)
    except CommandFailed as failed:
        return str(failed)
    return None


def userns_command(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` as root of a user namespace with a network and mounts of its own.

    unshare becomes the program, so the pid stays; everything the namespaces hold goes with their last process.
    The new network has no way out: whatever has to be downloaded must be there before.
    """
    unshare = find_program("unshare")
    if unshare is None:
        raise LabError("not installed: unshare (package util-linux)")
    return [unshare, *_IN_USERNS, "--net", "--", *argv]


def enter_userns(argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become `argv` inside the namespaces; returns only by an exception."""
    command = userns_command(argv)
    os.execve(command[0], command, {**environment, USERNS_VARIABLE: str(os.getuid())})
