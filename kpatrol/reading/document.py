"""The JSON of `kpatrol report --json` and `kpatrol lab --json`: stable names, made from verdicts. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from topics.round_verdicts import RoundVerdict
from topics.task_rounds import FOLLOW_UP

Json = dict[str, Any]


def newest(verdicts: Sequence[RoundVerdict]) -> list[RoundVerdict]:
    """The highest revision of each round, by task and round number."""
    best: dict[int, RoundVerdict] = {}
    for verdict in verdicts:
        known = best.get(verdict.round_id)
        if known is None or verdict.revision > known.revision:
            best[verdict.round_id] = verdict
    return sorted(best.values(), key=lambda v: (v.task, v.round))


def tasks_in_order(rounds: Sequence[RoundVerdict]) -> list[str]:
    """The tasks of these rounds; what looked more closely at one of them comes next to it."""
    closer = {v.task: str(v.spec.get("task", "")) for v in rounds if v.kind == FOLLOW_UP}
    tasks = list(dict.fromkeys(v.task for v in rounds if v.kind != FOLLOW_UP))
    told = [name for task in tasks for name in (task, *(c for c, about in closer.items() if about == task))]
    return told + [name for name in closer if name not in told]


def round_json(verdict: RoundVerdict) -> Json:
    """One round with the report's names; all that the verdict holds, delays flattened to `mean_us`, `p50_us`, …"""
    everything: Json = _plain(verdict)
    flat = {k: v for k, v in everything.items() if k not in ("delay", "sent_delay", "trust")}
    flat |= everything["delay"]
    sent = {f"from_sent_{name}": value for name, value in everything["sent_delay"].items()}
    trust = {"trust": verdict.trust.grade, "trust_reasons": list(verdict.trust.reasons)}
    trust |= {"trust_notes": list(verdict.trust.notes), "unfit_nodes": list(verdict.trust.unfit)}
    rates = {name: everything["trust"][name] for name in ("lateness_p99_us", "asked_rate", "achieved_rate")}
    return flat | sent | trust | rates


def _plain(value: Any, name: str = "") -> Any:
    """Structs to objects with every field, empty ones too; delays to a tenth of a microsecond."""
    if isinstance(value, msgspec.Struct):
        return {f: _plain(getattr(value, f), f) for f in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return round(value, 1) if isinstance(value, float) and name.endswith("_us") else value


def task_json(task: str, verdicts: Sequence[RoundVerdict]) -> Json:
    """All rounds of one task."""
    return {"task": task, "kind": verdicts[0].kind if verdicts else "", "rounds": [round_json(v) for v in verdicts]}


def report_json(verdicts: Sequence[RoundVerdict]) -> Json:
    """`tasks[]`, and where there is exactly one task also its `task`, `kind` and `rounds` at the top.

    `follow_ups[]` are the rounds that looked more closely at a finding; there is none where none was played.
    """
    closer = [v for v in newest(verdicts) if v.kind == FOLLOW_UP]
    rounds = [v for v in newest(verdicts) if v.kind != FOLLOW_UP]
    tasks = [task_json(t, [v for v in rounds if v.task == t]) for t in dict.fromkeys(v.task for v in rounds)]
    document: Json = {"tasks": tasks}
    if closer:
        document["follow_ups"] = [round_json(v) for v in closer]
    return document | tasks[0] if len(tasks) == 1 else document


def exit_code(verdicts: Sequence[RoundVerdict], *, expected_rounds: int | None = None) -> int:
    """0 all rounds met the expectation, 1 one did not, 2 cannot tell (no round, too few, or an unknown one).

    A round that failed outweighs one that cannot be told. Unknown is never green.
    """
    rounds = [v for v in newest(verdicts) if v.kind != FOLLOW_UP]
    if any(v.verdict == "fail" for v in rounds):
        return 1
    too_few = not rounds or (expected_rounds is not None and len(rounds) < expected_rounds)
    if too_few or any(v.verdict != "succeed" or not v.final for v in rounds):
        return 2
    return 0
