"""What a check leaves for `kpatrol resume`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kpatrol.check.mesh import Key, Pair

STATE_VERSION = 2


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs that were not good (source node, destination, protocol), and nodes that had no agent (cluster, node).

    By names, not addresses: a pod that was replaced meanwhile is asked all the same. `left` is what a check that was
    ended had not asked yet: source node to destinations.
    `config` and `options` are the file and the options that the check was given, `clusters` the addresses of the API
    servers it asked.
    """

    version: int
    pairs: tuple[tuple[str, str, str], ...]
    nodes: tuple[tuple[str, str], ...]
    left: Mapping[str, tuple[str, ...]] = {}
    config: str = ""
    options: Mapping[str, Any] = {}
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The pairs that `resume` asks."""

    keys: frozenset[Key]
    left: frozenset[Pair]

    def __contains__(self, key: object) -> bool:
        return key in self.keys or (isinstance(key, tuple) and key[:2] in self.left)


def wanted(kept: Kept) -> Wanted | None:
    """None: all. Where a node had no agent, nothing is known of any of its pairs."""
    return None if kept.nodes else Wanted(frozenset(kept.pairs), left_of(kept))


def left_of(kept: Kept) -> frozenset[Pair]:
    """What was never asked."""
    return frozenset((src, dst) for src, found in kept.left.items() for dst in found)


def grouped(left: Collection[Pair]) -> dict[str, tuple[str, ...]]:
    """By source."""
    found: dict[str, list[str]] = {}
    for src, dst in sorted(left):
        found.setdefault(src, []).append(dst)
    return {src: tuple(names) for src, names in found.items()}


def write(path: Path, kept: Kept) -> None:
    """In one step: who is killed leaves the file as it was. Raises OSError."""
    whole = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    whole.write_bytes(msgspec.json.encode(kept) + b"\n")
    whole.replace(path)
