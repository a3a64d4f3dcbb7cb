"""The elements of a network that a loss may be blamed on, each family of them as groups of lines of evidence.

Narrower families stand first: where two suspects cover the same lines the narrower is named, since nothing tells it
from the wider one (one source alone cannot tell a node's ingress from a pair).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from streams.judging.evidence import NOWHERE, Evidence, Floats, Indexes

What = Literal["pair", "node", "rack", "zone", "zone_pair", "layer", "size"]
Direction = Literal["pair", "ingress", "egress", "layer", "size"]


Groups = Callable[[Indexes], Indexes]


@dataclass(frozen=True, kw_only=True)
class Family:
    """All elements of one kind and direction. `group` gives the element of each of some lines, NOWHERE where none.

    `back` gives the element to which a line is traffic the other way, None where there is no other way. A loss counts
    only if it is seen from two places at least, by each of `ends`. `tried` is by group; `named` gives the number of the
    element of a name, NOWHERE where there is none.
    """

    what: What
    direction: Direction
    group: Groups
    back: Groups | None
    ends: tuple[Indexes, ...]
    tried: Floats
    named: Callable[[str], int]

    @property
    def single(self) -> bool:
        """Whether an element is one line or few: a burst is then no rarer than a fault."""
        return self.what == "pair"


def sums(group: Indexes, weights: Floats, count: int) -> Floats:
    """Sums by group; what is in no group is left out."""
    if len(group) and group.min() < 0:
        weights, group = weights[group >= 0], group[group >= 0]
    return np.asarray(np.bincount(group, weights=weights, minlength=count), dtype=np.float64)


def families(seen: Evidence) -> list[Family]:
    """The families that the evidence can speak of, nodes' ingress and egress first; pairs stand apart (`pairs_of`)."""
    nodes = len(seen.nodes)
    into, out_of = sums(seen.dst, seen.tried, nodes), sums(seen.src, seen.tried, nodes)
    node = partial(_place_of, seen.nodes, "")
    found = [
        _ways("node", "ingress", lambda i: seen.dst[i], lambda i: seen.src[i], (seen.src,), into, node),
        _ways("node", "egress", lambda i: seen.src[i], lambda i: seen.dst[i], (seen.dst,), out_of, node),
    ]
    for what, of_node, names in (("rack", seen.rack, seen.racks), ("zone", seen.zone, seen.zones)):
        if len(names) > 1:
            found += _places(seen, "rack" if what == "rack" else "zone", of_node, names, into, out_of)
    if len(seen.kinds) > 1:
        tried = sums(seen.kind, seen.tried, len(seen.kinds))
        kind = partial(_place_of, ["/".join(k) for k in seen.kinds], "")
        found.append(_ways("layer", "layer", lambda i: seen.kind[i], None, (seen.dst,), tried, kind))
    if len(seen.sizes) > 1:
        tried = sums(seen.size, seen.tried, len(seen.sizes))
        size = partial(_place_of, [size_words(n) for n in seen.sizes], "size ")
        found.append(_ways("size", "size", lambda i: seen.size[i], None, (seen.src, seen.dst), tried, size))
    return found


def _ways(
    what: What,
    direction: Direction,
    group: Groups,
    back: Groups | None,
    ends: tuple[Indexes, ...],
    tried: Floats,
    named: Callable[[str], int],
) -> Family:
    return Family(what=what, direction=direction, group=group, back=back, ends=ends, tried=tried, named=named)


def _place_of(names: Sequence[str], prefix: str, element: str) -> int:
    bare = element.removeprefix(prefix)
    return names.index(bare) if element.startswith(prefix) and bare in names else NOWHERE


def _places(
    seen: Evidence, what: What, of_node: Indexes, names: Sequence[str], into: Floats, out_of: Floats
) -> list[Family]:
    """What comes into and goes out of racks or zones, and between two zones; what stays inside is in none of them.

    A loss must be seen at two of the place's nodes and by two peers. What a place tried is what its nodes did, less
    what stayed inside: far fewer lines to look at than all.
    """
    count = len(names)
    here, there = of_node[seen.src], of_node[seen.dst]
    inside = np.nonzero(here == there)[0]
    stayed = sums(here[inside], seen.tried[inside], count)

    def up(lines: Indexes) -> Indexes:
        a, b = of_node[seen.src[lines]], of_node[seen.dst[lines]]
        return np.where(a != b, a, NOWHERE)

    def down(lines: Indexes) -> Indexes:
        a, b = of_node[seen.src[lines]], of_node[seen.dst[lines]]
        return np.where(a != b, b, NOWHERE)

    def between(lines: Indexes) -> Indexes:
        a, b = of_node[seen.src[lines]], of_node[seen.dst[lines]]
        return np.where((a != b) & (a >= 0) & (b >= 0), a * count + b, NOWHERE)

    def back(lines: Indexes) -> Indexes:
        a, b = of_node[seen.src[lines]], of_node[seen.dst[lines]]
        return np.where((a != b) & (a >= 0) & (b >= 0), b * count + a, NOWHERE)

    def two(element: str) -> int:
        a, b = (_place_of(names, "zone ", part) for part in (*element.split(">"), "")[:2])
        return a * count + b if a >= 0 and b >= 0 else NOWHERE

    ends, one = (seen.src, seen.dst), partial(_place_of, names, f"{what} ")
    found = [
        _ways(what, "ingress", down, up, ends, sums(of_node, into, count) - stayed, one),
        _ways(what, "egress", up, down, ends, sums(of_node, out_of, count) - stayed, one),
    ]
    if what == "zone":
        known = (here >= 0) & (there >= 0)
        tried = sums(np.where(known, here * count + there, NOWHERE), seen.tried, count * count)
        tried[:: count + 1] = 0
        found.append(_ways("zone_pair", "pair", between, back, ends, tried, two))
    return found


def pairs_of(seen: Evidence, lossy: Indexes) -> Family:
    """Pairs with a line among `lossy`; every other line is in no group."""
    count = len(seen.nodes)
    codes = np.unique(seen.src[lossy] * count + seen.dst[lossy])
    from_one, to_one = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    from_one[seen.src[lossy]] = True
    to_one[seen.dst[lossy]] = True

    def place(src: Indexes, dst: Indexes) -> Indexes:
        group = np.full(len(src), NOWHERE, dtype=np.int64)
        near = np.nonzero(from_one[src] & to_one[dst])[0]
        if len(codes) and len(near):
            wanted = src[near] * count + dst[near]
            at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
            group[near] = np.where(codes[at] == wanted, at, NOWHERE)
        return group

    def named(element: str) -> int:
        a, b = (_place_of(seen.nodes, "", part) for part in (*element.split(">"), "")[:2])
        return int(place(np.array([a]), np.array([b]))[0]) if a >= 0 and b >= 0 else NOWHERE

    return Family(
        what="pair",
        direction="pair",
        group=lambda lines: place(seen.src[lines], seen.dst[lines]),
        back=lambda lines: place(seen.dst[lines], seen.src[lines]),
        ends=(),
        tried=sums(place(seen.src, seen.dst), seen.own, len(codes)),
        named=named,
    )


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
