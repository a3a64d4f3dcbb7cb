"""The elements of a network that a loss may be blamed on, each family of them as groups of lines of evidence.

Narrower families stand first: where two suspects cover the same lines the narrower is named, since nothing tells it
from the wider one (one source alone cannot tell a node's ingress from a pair).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from streams.judging.evidence import NOWHERE, Evidence, Indexes

What = Literal["pair", "node", "rack", "zone", "zone_pair", "layer", "size"]
Direction = Literal["pair", "ingress", "egress", "layer", "size"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """All elements of one kind and direction. `group` is the element of each line, NOWHERE of none.

    `back` is the element to which a line is traffic the other way, None where there is no other way. A loss counts only
    if it is seen from two places at least, by each of `ends`. `count` is how many groups can be numbered.
    """

    what: What
    direction: Direction
    group: Indexes
    back: Indexes | None
    ends: tuple[Indexes, ...]
    count: int

    @property
    def single(self) -> bool:
        """Whether an element is one line or few: a burst is then no rarer than a fault."""
        return self.what == "pair"


def families(seen: Evidence) -> Iterator[Family]:
    """The families that the evidence can speak of; pairs stand apart (`pairs_of`)."""
    nodes = len(seen.nodes)
    yield from _both_ways("node", seen.src, seen.dst, nodes, inside=None)
    for what, of_node, names in (("rack", seen.rack, seen.racks), ("zone", seen.zone, seen.zones)):
        if len(names) > 1:
            here, there = of_node[seen.src], of_node[seen.dst]
            apart = here != there
            up, down = np.where(apart, here, NOWHERE), np.where(apart, there, NOWHERE)
            yield from _both_ways("rack" if what == "rack" else "zone", up, down, len(names), inside=seen)
            if what == "zone":
                known = apart & (here >= 0) & (there >= 0)
                yield Family(
                    what="zone_pair",
                    direction="pair",
                    group=np.where(known, here * len(names) + there, NOWHERE),
                    back=np.where(known, there * len(names) + here, NOWHERE),
                    ends=(seen.src, seen.dst),
                    count=len(names) ** 2,
                )
    if len(seen.kinds) > 1:
        yield Family(
            what="layer", direction="layer", group=seen.kind, back=None, ends=(seen.dst,), count=len(seen.kinds)
        )
    if len(seen.sizes) > 1:
        yield Family(
            what="size", direction="size", group=seen.size, back=None, ends=(seen.src, seen.dst), count=len(seen.sizes)
        )


def _both_ways(what: What, src: Indexes, dst: Indexes, count: int, *, inside: Evidence | None) -> Iterator[Family]:
    """Ingress and egress. A node's loss must be seen by two peers; a rack's or zone's at two of its nodes as well."""
    into = (src,) if inside is None else (inside.src, inside.dst)
    out_of = (dst,) if inside is None else (inside.dst, inside.src)
    yield Family(what=what, direction="ingress", group=dst, back=src, ends=into, count=count)
    yield Family(what=what, direction="egress", group=src, back=dst, ends=out_of, count=count)


def pairs_of(seen: Evidence, lossy: Indexes) -> Family:
    """Pairs with a line among `lossy`; every other line is in no group."""
    count = len(seen.nodes)
    codes = np.unique(seen.src[lossy] * count + seen.dst[lossy])
    from_one, to_one = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    from_one[seen.src[lossy]] = True
    to_one[seen.dst[lossy]] = True
    return Family(
        what="pair",
        direction="pair",
        group=_place(seen.src, seen.dst, from_one, to_one, codes, count),
        back=_place(seen.dst, seen.src, from_one, to_one, codes, count),
        ends=(),
        count=len(codes),
    )


def _place(src: Indexes, dst: Indexes, from_one: np.ndarray, to_one: np.ndarray, codes: Indexes, count: int) -> Indexes:
    """Each line's place among the sorted `codes` of pairs; looked up only where both ends can be in one."""
    group = np.full(len(src), NOWHERE, dtype=np.int64)
    near = np.nonzero(from_one[src] & to_one[dst])[0]
    if len(codes) and len(near):
        wanted = src[near] * count + dst[near]
        at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        group[near] = np.where(codes[at] == wanted, at, NOWHERE)
    return group


def name_of(seen: Evidence, family: Family, line: int) -> str:
    """How the element of a line is called."""
    src, dst = int(seen.src[line]), int(seen.dst[line])
    mine = dst if family.direction == "ingress" else src
    match family.what:
        case "pair":
            name = f"{seen.nodes[src]}>{seen.nodes[dst]}"
        case "node":
            name = seen.nodes[mine]
        case "rack":
            name = f"rack {seen.racks[int(seen.rack[mine])]}"
        case "zone":
            name = f"zone {seen.zones[int(seen.zone[mine])]}"
        case "zone_pair":
            name = f"zone {seen.zones[int(seen.zone[src])]}>zone {seen.zones[int(seen.zone[dst])]}"
        case "layer":
            name = "/".join(seen.kinds[int(seen.kind[line])])
        case "size":
            name = f"size {size_words(seen.sizes[int(seen.size[line])])}"
    return name


def size_words(size: int) -> str:
    """A payload's size as people read it."""
    return "full" if size == 0xFFFF else "smallest" if size == 0 else f"{size} bytes"
