"""What speaks against a round: the rules of the verdict, each as a function that gives its reasons.

kdoctor's rules, without their faults: any target of any agent below the success rate asked fails the round; so does
a mean delay above the limit, taken over successful requests only, in microseconds, from the moment of sending (the
planned time would charge the instrument's own lateness to the network; both are shown). Requests that could not be
sent, agents that did not report and targets that do not exist speak against it too. What may be the instrument's own
doing makes the round `unknown`, and so does what was asked of an agent that went away meanwhile (see away).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from streams.judging import summary
from streams.judging.away import lines_to
from streams.judging.pair_table import PairTable
from streams.judging.words import delay, percent, plural, some
from topics.outcome import Outcome
from topics.round_verdicts import AgentAccount
from topics.task_rounds import Expect, RoundScheduled

# Ends that no weakness of the sending or answering agent explains.
DEFINITE = (
    *(Outcome.refused, Outcome.unreachable, Outcome.dns_error, Outcome.tls_error),
    *(Outcome.http_error, Outcome.bad_reply, Outcome.wrong_peer, Outcome.target_gone),
)
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that speaks against success.

    `fail` blames the target or the network, `unknown` says that we cannot tell, `void` that nobody wants to know.
    """

    weight: Literal["fail", "unknown", "void"]
    text: str
    nodes: frozenset[str] = frozenset()


def of_round(*, round_: RoundScheduled, accounts: Sequence[AgentAccount], cancelled: str | None) -> Iterable[Reason]:
    """Reasons that need no results."""
    if cancelled is not None and any(a.state != "finished" or a.declared_missing or a.unsent for a in accounts):
        yield Reason(weight="void", text=f"cancelled: {cancelled}" if cancelled else "cancelled")
    if round_.unresolved:
        yield Reason(weight="fail", text=f"not found: {some(round_.unresolved)}")
    if round_.planned == 0 and sum(a.planned for a in accounts) == 0:
        nobody = "no agent takes part" if not accounts else "there is nothing to send requests to"
        yield Reason(weight="unknown", text=f"nothing was planned: {nobody}")


def of_accounts(
    *, accounts: Sequence[AgentAccount], cancelled: bool, left: frozenset[str] = frozenset()
) -> Iterable[Reason]:
    """Agents that did not report, requests without a record, requests not sent. `left`: nodes whose agent was away."""
    silent = [a for a in accounts if a.planned and a.state not in ("finished", "unexpected")]
    gone = [a for a in silent if a.node in left]
    yield from _silent([a for a in silent if a.node not in left], "did not report", "unknown" if cancelled else "fail")
    yield from _silent(gone, "went away in the round", "unknown")
    unsent = [a for a in accounts if a.unsent]
    if unsent:
        count = sum(a.unsent for a in unsent)
        text = f"the instrument could not send {plural(count, 'request')} ({some([a.node for a in unsent])})"
        yield Reason(weight="unknown", text=text, nodes=frozenset(a.node for a in unsent))
    odd = [a for a in accounts if a.unexplained]
    if odd:
        count = sum(abs(a.unexplained) for a in odd)
        text = f"{plural(count, 'request')} unexplained ({some([a.node for a in odd])})"
        yield Reason(weight="unknown", text=text, nodes=frozenset(a.node for a in odd))


def _silent(accounts: Sequence[AgentAccount], what: str, weight: Literal["fail", "unknown"]) -> Iterable[Reason]:
    if accounts:
        text = (
            f"{plural(len(accounts), 'agent')} {what}: {some([f'{a.node} ({a.cause or a.state})' for a in accounts])}"
        )
        yield Reason(weight=weight, text=text, nodes=frozenset(a.node for a in accounts))


def of_missing(*, accounts: Sequence[AgentAccount], pairs: PairTable, expect: Expect) -> Iterable[Reason]:
    """Requests whose record is lost, where they could have decided: had all of them failed, would it still hold."""
    missing = [a for a in accounts if a.declared_missing and a.state == "finished"]
    if not missing:
        return
    agents = np.array(pairs.texts("src_agent"), dtype=np.str_)
    sent, ok = summary.tried(pairs), pairs.counts("ok")
    doubtful = []
    for account in missing:
        mine = agents == account.agent
        worst = int(ok[mine].sum()) / (int(sent[mine].sum()) + account.declared_missing)
        if worst < expect.success_rate - ROUNDING:
            doubtful.append(account)
    if doubtful:
        count = sum(a.declared_missing for a in doubtful)
        names = some([f"{a.node}: {a.cause}" for a in doubtful])
        text = f"the record of {plural(count, 'request')} is lost ({names})"
        yield Reason(weight="unknown", text=text, nodes=frozenset(a.node for a in doubtful))


def of_pairs(
    *, pairs: PairTable, expect: Expect, unfit: frozenset[str], left: frozenset[str] = frozenset()
) -> Iterable[Reason]:
    """Targets below the success rate, and targets slower than the limit, each judged for every agent.

    What failed of those asked of nodes `left` by their agent blames nobody.
    """
    sent, ok = summary.tried(pairs), pairs.counts("ok")
    touched = _touches(pairs, unfit)
    rate = ok / np.maximum(sent, 1)
    below = (sent > 0) & (rate < expect.success_rate - ROUNDING)
    away = below & lines_to(pairs, left)
    if away.any():
        failed = plural(int((sent - ok)[away].sum()), "request")
        yield Reason(weight="unknown", text=f"{failed} to agents that were away failed ({some(sorted(left))})")
    below &= ~away
    if below.any():
        certain = (sent - pairs.outcome_counts(DEFINITE)) / np.maximum(sent, 1) < expect.success_rate - ROUNDING
        head = f"{int(below.sum())} of {plural(len(pairs), 'pair')} below the success rate asked"
        order = np.lexsort((np.arange(len(rate)), rate))
        names = [_failed(pairs, int(i), float(rate[i])) for i in order[below[order]][:3]]
        text = f"{head} ({percent(expect.success_rate)}): {_more(names, int(below.sum()))}"
        yield _reason(pairs, text, below, doubt=touched & ~certain)
    mean = pairs.counts("sent_us_sum") / np.maximum(ok, 1)
    slow = (ok > 0) & (mean > expect.mean_delay_ms * 1000)
    if slow.any():
        head = f"{int(slow.sum())} of {plural(len(pairs), 'pair')} slower than {expect.mean_delay_ms} ms on average"
        order = np.argsort(-mean, kind="stable")[: int(slow.sum())]
        names = [f"{_pair(pairs, int(i))} {delay(float(mean[i]))}" for i in order[:3]]
        yield _reason(pairs, f"{head}: {_more(names, int(slow.sum()))}", slow, doubt=touched)


def _reason(pairs: PairTable, text: str, which: npt.NDArray[np.bool_], *, doubt: npt.NDArray[np.bool_]) -> Reason:
    nodes = frozenset(np.array(pairs.texts("src_node"), dtype=np.str_)[which].tolist())
    if bool((which & ~doubt).any()):
        return Reason(weight="fail", text=text, nodes=nodes)
    return Reason(weight="unknown", text=f"{text}; the agents there were not fit to measure", nodes=nodes)


def _touches(pairs: PairTable, nodes: frozenset[str]) -> npt.NDArray[np.bool_]:
    touched = np.zeros(len(pairs), dtype=bool)
    for name in ("src_node", "dst_node"):
        texts, codes = pairs.codes(name)
        touched |= np.array([text in nodes for text in texts], dtype=bool)[codes]
    return touched


def _failed(pairs: PairTable, index: int, rate: float) -> str:
    line = pairs.row(index)
    ends = [f"{line['outcomes'][o.name]} {o.name}" for o in Outcome if o != Outcome.ok and line["outcomes"].get(o.name)]
    return f"{_pair(pairs, index)} {percent(rate)} ({some(ends)} of {line['n']})"


def _pair(pairs: PairTable, index: int) -> str:
    line = pairs.row(index)
    return f"{line['src_node']} → {line['dst']} {line['proto']}"


def _more(shown: Sequence[str], total: int) -> str:
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")
