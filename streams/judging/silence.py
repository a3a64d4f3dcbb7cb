"""What the silence of an agent means: the others' probes of its node decide. Pure.

An agent that did not report may be dead with its node, dead alone, or well and cut off from Kafka. Each is said in
words, as a finding about the node; where nobody probed the node, that is said too and nothing is claimed.

- its agent answered in this round: both live, only the records do not come;
- its host answered (a refusal, a reset, another layer or protocol), its agent never: the agent is dead or hangs;
- nothing came back from anybody: the node is dead or cut off from all its peers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.judging import stats
from streams.judging.away import stopped
from streams.judging.findings import clock, evidence_where
from streams.judging.pair_table import PairTable
from streams.judging.summary import tried
from streams.judging.words import plural
from topics.outcome import Outcome
from topics.round_verdicts import AgentAccount, Finding

# The host answered, though not the agent.
_HOST = (Outcome.refused, Outcome.reset, Outcome.wrong_peer, Outcome.target_gone)
# Of fewer requests than this nothing is claimed.
LEAST_ASKED = 3
SILENT = frozenset({"silent", "unfinished", "gone"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What the others got from a node."""

    peers: int
    asked: int
    answered: int
    host: int


def silences(
    *, accounts: Sequence[AgentAccount], pairs: PairTable, unfit: frozenset[str], round_id: int, start_us: int
) -> tuple[Finding, ...]:
    """A finding for each agent of the round that did not report and had not said that it stops."""
    silent = [a for a in accounts if a.planned and a.state in SILENT and not stopped(a)]
    if not silent:
        return ()
    names, codes = pairs.codes("dst_node")
    src_names, src = pairs.codes("src_node")
    fit = np.array([name not in unfit for name in src_names], dtype=bool)[src]
    sent, ok, host = tried(pairs), pairs.counts("ok"), pairs.outcome_counts(_HOST)
    found = []
    for account in silent:
        code = names.index(account.node) if account.node in names else -1
        own = src_names.index(account.node) if account.node in src_names else -1
        mine = (codes == code) & (src != own) & fit
        heard = _Heard(
            peers=len(np.unique(src[mine])),
            asked=int(sent[mine].sum()),
            answered=int(ok[mine].sum()),
            host=int(host[mine].sum()),
        )
        found.append(_finding(account, heard, round_id=round_id, start_us=start_us))
    return tuple(found)


def _finding(account: AgentAccount, heard: _Heard, *, round_id: int, start_us: int) -> Finding:
    kind, text, confidence = _meaning(account, heard)
    return Finding(
        element=account.node,
        direction="silent",
        kind=kind,
        sentence=f"{text}, since {clock(start_us)}",
        loss=stats.loss(sent=heard.asked, lost=heard.asked - heard.answered),
        confidence=confidence,
        evidence_sql=evidence_where(node=account.node, round_id=round_id, start_us=start_us),
        since_us=start_us,
    )


def _meaning(account: AgentAccount, heard: _Heard) -> tuple[str, str, float]:
    """(kind, words, confidence)."""
    node, of = account.node, f"{plural(heard.asked, 'request')} of {plural(heard.peers, 'peer')}"
    cause = f" ({account.cause})" if account.cause else ""
    if heard.asked < LEAST_ASKED:
        return "silent", f"{node} did not report{cause}, and too few probes reached for it to tell why ({of})", 0.0
    # One answer in two is enough for life; a node that died in mid-round answered some.
    share = heard.answered / heard.asked
    if share >= 0.5:
        text = f"{node} answers its peers ({heard.answered} of {of}) but its records do not come{cause}: "
        return "kafka_cut", text + "node and agent live, their way to Kafka is cut or the agent cannot publish", 0.95
    if heard.host or heard.answered:
        some = f"{heard.answered} answered, {heard.host} refused or reset"
        text = f"{node} is there but its agent does not answer ({some}, of {of}){cause}: the agent is dead or hangs"
        return "agent_dead", text, 0.9 if heard.host else 0.7
    return (
        "node_dead",
        f"nothing comes back from {node} ({of}){cause}: the node is dead or cut off from all of them",
        0.95,
    )
