"""Agents that went away in the middle of a round: what was asked of them says nothing about the network. Pure.

An agent may be stopped (a rollout, a drained node), die and begin again, or be replaced. Requests to it then end as
`refused`, `target_gone`, `wrong_peer` or in time; they are stored as they ended, but neither count as packet loss, nor
blame a healthy agent, nor fail the round: it is `unknown` at best, and says who was away. What says that an agent went
away is never that requests to it failed, or every fault would excuse itself:

- the agent's own word: it stops, or its next incarnation takes over or declares what the dead one owed, or began after
  the round had, or says that the round's membership sends its peers to where a pod of it was before;
- another incarnation's answers (`target_gone`);
- the controller's word that nothing is heard of it (AgentGone), and an answer of its host to the others' probes. Where
  nothing came back from the node either, it may as well be the network; where the agent answered, it was there.
"""

from collections.abc import Sequence

import numpy as np

from streams.judging.directions import Masks
from streams.judging.pair_table import PairTable
from topics.outcome import Outcome
from topics.round_progress import AGENT_DIED, AGENT_STOPPED, UNSENT_STOPPED
from topics.round_verdicts import AgentAccount, Finding

_THERE = frozenset({"node_dead", "kafka_cut"})


def nodes_left(*, accounts: Sequence[AgentAccount], pairs: PairTable, silent: Sequence[Finding]) -> frozenset[str]:
    """Nodes whose agent was away for a part of the round; `silent` are findings about agents that did not report."""
    otherwise = {f.element for f in silent if f.kind in _THERE}
    left = {a.node for a in accounts if stopped(a) or _left(a)}
    left |= {a.node for a in accounts if a.state == "gone" and a.node not in otherwise}
    names, codes = pairs.codes("dst_node")
    replaced = np.unique(codes[pairs.outcome_counts((Outcome.target_gone,)) > 0])
    return frozenset(left | {names[i] for i in replaced if names[i]})


def stopped(account: AgentAccount) -> bool:
    """Whether the agent said that it stops: no silence that would have to be explained."""
    return account.state == "gone" and AGENT_STOPPED in account.cause


def _left(account: AgentAccount) -> bool:
    if account.replaced or account.incarnations > 1 or account.unsent_causes.get(UNSENT_STOPPED):
        return True
    return account.state == "finished" and account.declared_missing > 0 and AGENT_DIED in account.cause


def lines_to(pairs: PairTable, nodes: frozenset[str]) -> Masks:
    """The lines of the pair table that asked something of these nodes."""
    names, codes = pairs.codes("dst_node")
    return np.asarray(np.array([name in nodes for name in names], dtype=bool)[codes], dtype=bool)
