"""Loss of each line of the pair table by direction, from both ends' accounts. Pure.

TCP: the way there is the client's segments sent again (less those sent again because the SYN-ACK was lost), the way
back the server's. Datagrams: the way there is what did not come, the way back what came and was not answered. A TCP
connection that never came about lost something on either way; nobody can say which.

A line is `known` when the receipts cover it: every request that was answered must have come. Receipts travel apart from
results; where some are missing the line simply has no direction.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from streams.judging.pair_table import Ints, PairTable
from topics.outcome import Outcome

Masks = npt.NDArray[np.bool_]
TCP = frozenset({"http", "https", "tcp"})
# Protocols whose serving side tells what it received, when it is one of our agents.
TOLD = TCP | {"udp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """Packets by line and direction; where a line is not `known`, `forward` is what the client alone has counted.

    `open_*` are packets lost on either way, in neither `forward` nor `reverse`.
    """

    known: Masks
    forward_sent: Ints
    forward_lost: Ints
    reverse_sent: Ints
    reverse_lost: Ints
    open_sent: Ints
    open_lost: Ints
    # Requests that came and were not answered.
    unanswered: Ints

    def without(self, lines: Masks) -> "Directions":
        """The same with no packets in `lines`: they say nothing about the way."""
        counts = {f.name: np.where(lines, 0, getattr(self, f.name)) for f in fields(self) if f.name != "known"}
        return replace(self, **counts)


def directions(pairs: PairTable) -> Directions:
    """Both ends' accounts of each line, as far as there are two."""
    sent, lost = pairs.counts("packets_sent"), pairs.counts("packets_lost")
    nothing = np.zeros(len(pairs), dtype=np.int64)
    if pairs.served is None or not len(pairs.served):
        return Directions(
            known=np.zeros(len(pairs), dtype=bool),
            forward_sent=sent,
            forward_lost=lost,
            reverse_sent=nothing,
            reverse_lost=nothing,
            open_sent=nothing,
            open_lost=nothing,
            unanswered=nothing,
        )
    served = pairs.served.aligned(pairs.table)
    known = _covered(pairs, served["received"], served["missing"])
    tcp = known & _among(pairs, "proto", TCP)
    udp = known & ~tcp
    ok = pairs.counts("ok")
    open_sent = np.where(tcp, pairs.counts("unopened_sent"), 0)
    open_lost = np.where(tcp, pairs.counts("unopened_lost"), 0)
    # Datagrams: a packet is a request, so what came is counted in requests.
    came = np.minimum(served["received"], sent)
    forward_lost = np.where(tcp, np.maximum(lost - open_lost - served["synack_lost"], 0), lost)
    reverse_sent = np.where(tcp, served["sent"], 0)
    answered = ok + _without_loss(pairs)
    unanswered = np.where(known, np.clip(served["received"] - answered, 0, None), 0)
    return Directions(
        known=known,
        forward_sent=sent - open_sent,
        forward_lost=np.where(udp, sent - came, forward_lost),
        reverse_sent=np.where(udp, came, reverse_sent),
        reverse_lost=np.where(udp, np.maximum(came - ok, 0), np.clip(served["lost"], 0, reverse_sent)) * known,
        open_sent=open_sent,
        open_lost=open_lost,
        unanswered=unanswered,
    )


def _without_loss(pairs: PairTable) -> Ints:
    """Requests that came and had an answer that is no success."""
    ends = (Outcome.http_error, Outcome.bad_reply, Outcome.wrong_peer, Outcome.target_gone, Outcome.tls_error)
    return pairs.outcome_counts(ends)


def _covered(pairs: PairTable, received: Ints, missing: Ints) -> Masks:
    """Lines whose receipts are all there, as far as the client can tell; one that got no answer at all only when the
    same node has told of others."""
    names, node = pairs.codes("dst_node")
    told = np.zeros(len(names), dtype=bool)
    told[node[received > 0]] = True
    told &= np.array([bool(name) for name in names], dtype=bool)
    whole = (received >= pairs.counts("ok")) & (missing == 0) & ((received > 0) | told[node])
    return np.asarray(whole & _among(pairs, "proto", TOLD), dtype=bool)


def _among(pairs: PairTable, column: str, wanted: frozenset[str]) -> Masks:
    names, codes = pairs.codes(column)
    return np.array([name in wanted for name in names], dtype=bool)[codes]


def lacking(pairs: PairTable) -> bool:
    """Whether receipts that must come are not there yet: of requests to our own agents that were answered."""
    names, node = pairs.codes("dst_node")
    wanted = np.array([bool(name) for name in names], dtype=bool)[node] & (pairs.counts("ok") > 0)
    wanted &= _among(pairs, "proto", TOLD)
    return bool(wanted.any() and (wanted & ~directions(pairs).known).any())
