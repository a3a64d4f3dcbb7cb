"""The outcome of a check as a value: what is printed, written as JSON or JUnit, kept for `resume`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import msgspec

from kpatrol.check import pairs
from kpatrol.check.mesh import Key, Pair
from kpatrol.check.nodes import NodeState
from kpatrol.check.pairs import PairRow
from kpatrol.check.state import STATE_VERSION, Kept, grouped, left_of, wanted
from topics.round_verdicts import RoundVerdict

# The protocol of a row that stands for all that a node asked in a task, destination `*`.
TASK = "task"
Change = Literal["fixed", "still_bad", "newly_bad", "gone", "not_asked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """A node of a cluster that took no part."""

    cluster: str
    state: NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that a check found; ``clusters`` are the addresses of the API servers it asked."""

    rows: Sequence[PairRow]
    apart: Sequence[Apart]
    verdicts: Sequence[RoundVerdict]
    changes: Mapping[Key, Change] | None = None
    clusters: tuple[str, ...] = ()

    def count(self, status: str) -> int:
        """Pairs of that status."""
        return sum(row.status == status for row in self.rows)

    @property
    def absent(self) -> int:
        """Nodes that should have taken part; those left out are not counted."""
        return sum(each.state.standing != "left_out" for each in self.apart)

    @property
    def not_asked(self) -> set[Key]:
        """What was not good and could not be asked again, because a node of it takes no part now."""
        return {key for key, change in (self.changes or {}).items() if change == "not_asked"}

    def exit_code(self, *, strict: bool) -> int:
        """0 all good, 1 a pair is bad, 2 not known; ``strict`` counts nodes left out as not known."""
        absent = (len(self.apart) if strict else self.absent) + len(self.not_asked)
        if not self.rows and self.changes is not None and not absent:
            return 0
        return pairs.exit_code(self.rows, absent=absent)


def as_json(result: Result, *, strict: bool) -> dict[str, Any]:
    """Stable names, for scripts."""
    findings = [f for verdict in result.verdicts for f in verdict.findings]
    return {
        "good": result.count("good"),
        "bad": result.count("bad"),
        "unknown": result.count("unknown"),
        "exit_code": result.exit_code(strict=strict),
        "pairs": [_row(row, result) for row in result.rows],
        "nodes_apart": [
            {"cluster": each.cluster, "node": each.state.node, "state": each.state.standing, "why": each.state.why}
            for each in result.apart
        ],
        "not_asked": sorted(result.not_asked),
        "findings": [msgspec.to_builtins(finding) for finding in findings],
        "planned": sum(v.planned for v in result.verdicts),
        "stored": sum(v.stored for v in result.verdicts),
        "unsent": sum(v.unsent for v in result.verdicts),
        "declared_missing": sum(v.declared_missing for v in result.verdicts),
        "unexplained": sum(v.unexplained for v in result.verdicts),
    }


def _row(row: PairRow, result: Result) -> dict[str, Any]:
    change = {"change": result.changes.get(row.key, "")} if result.changes is not None else {}
    return asdict(row) | {"loss": msgspec.to_builtins(row.loss)} | change


def as_junit(result: Result) -> str:
    """A test suite: a case a pair; bad is a failure, not known an error, a node left out is skipped."""
    suite = ElementTree.Element(
        "testsuite", name="kpatrol check", tests=str(len(result.rows) + len(result.apart)),
        failures=str(result.count("bad")), errors=str(result.count("unknown") + result.absent),
    )  # fmt: skip
    for row in result.rows:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"{row.cluster}.{row.proto}", name=f"{row.src} -> {row.dst}"
        )
        if row.status != "good":
            kind = "failure" if row.status == "bad" else "error"
            ElementTree.SubElement(case, kind, message=f"{row.reason}: {row.detail}")
    for each in result.apart:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{each.cluster}.node", name=each.state.node)
        kind = "skipped" if each.state.standing == "left_out" else "error"
        ElementTree.SubElement(case, kind, message=each.state.why)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def kept(result: Result, *, left: Collection[Pair] = (), before: Kept | None = None) -> Kept:
    """The unfinished business of a result: what was not good, and the pairs still ``left`` to be asked.

    ``before`` is what a `resume` is about: of what it has not reached, the old knowledge stays.
    """
    bad = {row.key for row in result.rows if row.status != "good"} | result.not_asked
    never = set(left)
    if before is not None and wanted(before) is not None:
        bad |= {key for key in before.pairs if key[:2] in never}
        never &= left_of(before)
    nodes = {(e.cluster, e.state.node) for e in result.apart if e.state.standing != "left_out"}
    # Of a task only the nodes are known: all is asked again.
    nodes |= {(row.cluster, row.src) for row in result.rows if row.proto == TASK and row.key in bad}
    return Kept(
        version=STATE_VERSION,
        pairs=tuple(sorted(key for key in bad if key[2] != TASK)),
        nodes=tuple(sorted(nodes)),
        left=grouped(never),
        clusters=result.clusters,
    )


def compared(before: Kept, rows: Sequence[PairRow], *, apart: Sequence[Apart] = ()) -> dict[Key, Change]:
    """What became of the last run's pairs, and what is bad that was not known to be.

    Nodes that are ``apart`` are there, so their pairs are not gone.
    """
    away = {name for each in apart for name in (each.state.node, f"{each.cluster}/{each.state.node}")}
    now = {row.key: row.status for row in rows}
    was = set(before.pairs)
    if any(key[2] == TASK for key in now):
        # Of a task a row is a node, and what was not good is kept as nodes.
        was |= {(node, "*", TASK) for _, node in before.nodes}
    changes: dict[Key, Change] = {}
    for key in was:
        missing: Change = "not_asked" if away & set(key[:2]) else "gone"
        changes[key] = missing if key not in now else "fixed" if now[key] == "good" else "still_bad"
    first_time = left_of(before)
    for key, status in now.items():
        if key not in was and key[:2] not in first_time and status != "good":
            changes[key] = "newly_bad"
    return changes
