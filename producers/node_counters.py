"""What the node's own kernel counts, as differences over a round: so that a loss that the node itself made can be told
from the network's. It says something only in the node's network namespace (the `host` flavour).
"""

from pathlib import Path

import msgspec

from producers.cgroup import text_of
from producers.proc_texts import conntrack, listed_counters, paired_counters, softnet
from producers.qdiscs import qdisc_drops
from topics.round_progress import NodeCounters

_TCP_DROPS = (
    *("ListenDrops", "TCPBacklogDrop", "TCPRcvQDrop", "TCPOFODrop", "TCPZeroWindowDrop", "PFMemallocDrop"),
    *("TCPReqQFullDrop", "TCPMinTTLDrop", "TCPDeferAcceptDrop"),
)
_UDP_ERRORS = ("RcvbufErrors", "SndbufErrors")


def counters(*, net: Path = Path("/proc/net"), dropped_by_qdiscs: int | None = None) -> NodeCounters:
    """The counters now, since the node (or the namespace) began. Reads a handful of small files, about 0.2 ms."""
    snmp = paired_counters(text_of(net / "snmp"))
    extended = paired_counters(text_of(net / "netstat"))
    six = listed_counters(text_of(net / "snmp6"))
    softnet_drops, squeezes = softnet(text_of(net / "softnet_stat"))
    tracked = conntrack(text_of(net / "stat" / "nf_conntrack"))
    received, sent, errors = interface_drops(text_of(net / "dev"))
    return NodeCounters(
        tcp_segments_out=snmp.get("Tcp.OutSegs", 0),
        tcp_retransmits=snmp.get("Tcp.RetransSegs", 0),
        tcp_drops=sum(extended.get(f"TcpExt.{name}", 0) for name in _TCP_DROPS),
        udp_buffer_errors=sum(snmp.get(f"Udp.{name}", 0) + six.get(f"Udp6{name}", 0) for name in _UDP_ERRORS),
        softnet_drops=softnet_drops,
        softnet_squeezes=squeezes,
        conntrack_insert_failed=tracked.get("insert_failed", 0),
        conntrack_drops=tracked.get("drop", 0) + tracked.get("early_drop", 0),
        interface_rx_drops=received,
        interface_tx_drops=sent,
        interface_errors=errors,
        qdisc_drops=qdisc_drops() if dropped_by_qdiscs is None else dropped_by_qdiscs,
    )


def interface_drops(dev: str) -> tuple[int, int, int]:
    """(received and dropped, dropped in sending, errors both ways) of /proc/net/dev, all devices together."""
    received = sent = errors = 0
    for line in dev.splitlines():
        _, colon, figures = line.partition(":")
        words = figures.split()
        if colon and len(words) >= 12 and all(word.isdigit() for word in words):
            received += int(words[3])
            sent += int(words[11])
            errors += int(words[2]) + int(words[10])
    return received, sent, errors


def since(*, now: NodeCounters, before: NodeCounters) -> NodeCounters:
    """The difference; a counter that went back (a device or a CPU is gone) counts as 0."""
    earlier = msgspec.structs.asdict(before)
    return NodeCounters(**{name: max(0, value - earlier[name]) for name, value in msgspec.structs.asdict(now).items()})
