"""The pairs of a check as rows: good, bad, or not known, each with its reason. Pure.

A pair is one source node, one destination, one protocol. Bad: a request failed. Not known: the instrument cannot say
(the agent was not heard, was not fit, or did not send). The large twins of UDP and ICMP are part of their pair: where
only they fail the reason is the MTU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kpatrol.check.judging import Judged
from kpatrol.check.mesh import Key
from streams.judging import stats
from streams.judging.directions import directions
from topics import share
from topics.outcome import Outcome
from topics.round_verdicts import Loss

Status = Literal["good", "bad", "unknown"]
# Which way packets were lost, where both ends have counted: there, back, both; empty: none, or not known.
Way = Literal["", "there", "back", "both"]
# Why a pair is not good; each has its words in `kpatrol.check.words`.
REASONS = (
    *("", "timeout", "refused", "reset", "no_route", "dns", "tls", "http", "bad_reply", "wrong_peer"),
    *("target_gone", "mtu", "loss", "not_heard", "not_sent", "not_fit", "task"),
)
_BY_OUTCOME: dict[str, str] = {
    Outcome.timeout.name: "timeout",
    Outcome.refused.name: "refused",
    Outcome.reset.name: "reset",
    Outcome.unreachable.name: "no_route",
    Outcome.dns_error.name: "dns",
    Outcome.tls_error.name: "tls",
    Outcome.http_error.name: "http",
    Outcome.bad_reply.name: "bad_reply",
    Outcome.wrong_peer.name: "wrong_peer",
    Outcome.target_gone.name: "target_gone",
}
_NOT_TRIED = (Outcome.unsent.name, Outcome.cancelled.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """One pair; ``detail`` is for people and in English, ``p50_us`` of its answered requests."""

    cluster: str
    src: str
    dst: str
    proto: str
    address: str
    status: Status
    reason: str
    detail: str
    requests: int
    ok: int
    loss: Loss
    p50_us: float | None
    way: Way = ""

    @property
    def key(self) -> Key:
        """What stays the same from run to run."""
        return (self.src, self.dst, self.proto)


def rows(judged: Iterable[Judged]) -> list[PairRow]:
    """All pairs that were asked for, the worst first: bad, not known, good; within them by share of failures."""
    return worst_first(row for each in judged for row in _rows_of(each))


def worst_first(found: Iterable[PairRow]) -> list[PairRow]:
    """Bad, not known, good; within them by share of failures."""
    order = {"bad": 0, "unknown": 1, "good": 2}
    return sorted(found, key=lambda row: (order[row.status], row.ok / row.requests if row.requests else 0.0, row.key))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """What one source was to ask of one destination, and what is stored of it."""

    src: str
    dst: str
    proto: str
    streams: Sequence[share.Stream]
    lines: Sequence[dict[str, Any]]
    cause: str
    unfit: bool
    way: Way


def _rows_of(judged: Judged) -> list[PairRow]:
    return [_row(judged, pair) for pair in _pairs(judged)]


def _pairs(judged: Judged) -> Iterable[_Pair]:
    lines: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for index in range(len(judged.pairs)):
        line = judged.pairs.row(index)
        lines.setdefault((line["src_agent"], line["dst"], line["proto"]), []).append(line)
    ways = _ways(judged)
    causes = {account.agent: account.cause for account in judged.verdict.accounts}
    for member in judged.site.members:
        asked: dict[tuple[str, str], list[share.Stream]] = {}
        for stream in share.share(round_=judged.round, members=judged.site.members, agent=member.agent):
            asked.setdefault((stream.target.dst, stream.target.proto.name), []).append(stream)
        for (dst, proto), streams in asked.items():
            key = (member.agent, dst, proto)
            yield _Pair(
                src=member.node,
                dst=dst,
                proto=proto,
                streams=streams,
                lines=lines.get(key, []),
                cause=causes.get(member.agent, ""),
                unfit=member.node in judged.unfit,
                way=ways.get(key, ""),
            )


def _ways(judged: Judged) -> dict[tuple[str, str, str], Way]:
    """By agent, destination and protocol, which way packets were lost; pairs without both ends' counts are left out."""
    found = directions(judged.pairs)
    names = (judged.pairs.texts(name) for name in ("src_agent", "dst", "proto"))
    lost: dict[tuple[str, str, str], tuple[int, int]] = {}
    lines = zip(*names, found.known, found.forward_lost, found.reverse_lost, strict=True)
    for agent, dst, proto, known, forward, reverse in lines:
        if known:
            there, back = lost.get((agent, dst, proto), (0, 0))
            lost[(agent, dst, proto)] = (there + int(forward), back + int(reverse))
    return {key: _WAYS[(there > 0, back > 0)] for key, (there, back) in lost.items()}


_WAYS: dict[tuple[bool, bool], Way] = {
    (False, False): "", (True, False): "there", (False, True): "back", (True, True): "both",
}  # fmt: skip


def _row(judged: Judged, pair: _Pair) -> PairRow:
    outcomes: Counter[str] = Counter()
    histogram: Counter[int] = Counter()
    for line in pair.lines:
        outcomes.update(line["outcomes"])
        histogram.update(line["hist_sent"])
    status, reason, detail = _judge(pair, outcomes)
    return PairRow(
        cluster=judged.round.cluster,
        src=pair.src,
        dst=pair.dst,
        proto=pair.proto,
        address=pair.streams[0].target.address,
        status=status,
        reason=reason,
        detail=detail,
        requests=_tried(outcomes),
        ok=outcomes[Outcome.ok.name],
        loss=stats.loss(
            sent=sum(line["packets_sent"] for line in pair.lines),
            lost=sum(line["packets_lost"] for line in pair.lines),
        ),
        p50_us=stats.quantile(dict(histogram), 0.5),
        way=pair.way,
    )


def _tried(outcomes: Counter[str]) -> int:
    return sum(count for name, count in outcomes.items() if name not in _NOT_TRIED)


def _judge(pair: _Pair, outcomes: Counter[str]) -> tuple[Status, str, str]:
    owed = sum(stream.requests for stream in pair.streams)
    tried, ok = _tried(outcomes), outcomes[Outcome.ok.name]
    if tried == 0 and outcomes:
        return "unknown", "not_sent", f"none of {owed} requests was sent"
    if tried == 0:
        return "unknown", "not_heard", pair.cause or "nothing was heard of this agent"
    if ok < tried:
        reason, detail = _why(pair.lines, outcomes, tried=tried, ok=ok)
        # An instrument that was late reads replies late: only what it takes for silence may be its own doing.
        if pair.unfit and reason in ("timeout", "loss", "mtu"):
            return "unknown", "not_fit", f"the instrument was not fit to say: {detail}"
        return "bad", reason, detail
    if tried < owed:
        return "unknown", "not_sent", f"{tried} of {owed} requests were sent"
    return "good", "", ""


def _why(lines: Sequence[dict[str, Any]], outcomes: Counter[str], *, tried: int, ok: int) -> tuple[str, str]:
    least = min(line["size"] for line in lines)
    small = [line for line in lines if line["size"] == least]
    large = [line for line in lines if line["size"] != least]
    if large and _all_ok(small) and not any(line["ok"] for line in large):
        size = max(line["size"] for line in large)
        return "mtu", f"packets of {size} bytes never arrive, small ones do: the path's MTU is smaller"
    failures = {name: count for name, count in outcomes.items() if name not in (*_NOT_TRIED, Outcome.ok.name)}
    name, count = max(failures.items(), key=lambda item: item[1])
    if name == Outcome.timeout.name and ok:
        loss = stats.loss(sent=tried, lost=tried - ok)
        return "loss", f"{tried - ok} of {tried} lost [{loss.low:.1%}-{loss.high:.1%}]"
    return _BY_OUTCOME[name], f"{count} of {tried}: {name}"


def _all_ok(lines: Sequence[dict[str, Any]]) -> bool:
    return bool(lines) and all(line["ok"] == line["n"] for line in lines)


def exit_code(found: Sequence[PairRow], *, absent: int) -> int:
    """0 all good; 1 a pair is bad; 2 something is not known: a pair, an agent that never answered, or nothing asked."""
    if any(row.status == "bad" for row in found):
        return 1
    return 2 if absent or not found or any(row.status == "unknown" for row in found) else 0
