"""Where a running lab can be reached: written into its folder, read by the other commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from kpatrol.lab.state import base_folder, is_owned

ADDRESSES = "addresses.json"


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """A lab's doors. The reader's account reads the views and nothing else."""

    lab: str
    kafka: str
    clickhouse_url: str
    clickhouse_password: str
    tasks_folder: str
    logs_folder: str


def write_addresses(folder: Path, addresses: Addresses) -> None:
    """Write them so that only this user can read them."""
    path = folder / ADDRESSES
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(addresses))


def running_labs(env: Mapping[str, str]) -> list[Addresses]:
    """The labs of this user whose owner lives and that have told their addresses."""
    folders = sorted(base_folder(env).glob("lab-*"))
    return [_read(folder) for folder in folders if (folder / ADDRESSES).exists() and is_owned(folder)]


def _read(folder: Path) -> Addresses:
    return msgspec.json.decode((folder / ADDRESSES).read_bytes(), type=Addresses)
