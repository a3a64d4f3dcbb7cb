"""The one table of columns: what each is, in which unit, and which OpenTelemetry attribute carries it outside.

Semantic conventions are used where a stable one exists (OpenTelemetry semantic conventions 1.44); the rest is ours,
under `kpatrol.`. An empty attribute means the column has no place in a span.
"""

from dataclasses import dataclass
from typing import Literal

Scope = Literal["row", "target", "batch"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the `probe` table: where its value comes from in a batch and its attribute in a span."""

    name: str
    scope: Scope
    attribute: str
    unit: str = ""


COLUMNS: tuple[Column, ...] = (
    Column("round_id", "batch", "kpatrol.round.id"),
    Column("round_number", "batch", "kpatrol.round.number"),
    Column("round_at", "batch", "kpatrol.round.start", "ms"),
    Column("ts", "row", "", "us"),
    Column("cluster", "batch", "k8s.cluster.name"),
    Column("task", "batch", "kpatrol.task"),
    Column("task_uid", "batch", "kpatrol.task.uid"),
    Column("proto", "target", "network.protocol.name"),
    Column("layer", "target", "kpatrol.layer"),
    Column("src_node", "batch", "k8s.node.name"),
    Column("src_zone", "batch", "cloud.availability_zone"),
    Column("src_rack", "batch", "kpatrol.rack"),
    Column("src_pod", "batch", "k8s.pod.name"),
    Column("agent", "batch", "service.instance.id"),
    Column("incarnation", "batch", "kpatrol.agent.incarnation"),
    Column("batch_seq", "batch", "kpatrol.batch.seq"),
    Column("seq", "row", "kpatrol.request.seq"),
    Column("target", "target", "kpatrol.target"),
    Column("dst", "target", "server.address"),
    Column("dst_node", "target", "kpatrol.destination.node"),
    Column("dst_zone", "target", "kpatrol.destination.zone"),
    Column("dst_rack", "target", "kpatrol.destination.rack"),
    Column("peer", "row", "kpatrol.peer"),
    Column("src_ip", "target", "network.local.address"),
    Column("dst_ip", "target", "network.peer.address"),
    Column("src_port", "row", "network.local.port"),
    Column("dst_port", "target", "network.peer.port"),
    Column("family", "target", "network.type"),
    Column("outcome", "row", "kpatrol.outcome"),
    Column("error_type", "row", "error.type"),
    Column("status", "row", "http.response.status_code"),
    Column("lateness_us", "row", "kpatrol.lateness", "us"),
    Column("dur_us", "row", "kpatrol.duration", "us"),
    Column("total_us", "row", "kpatrol.duration_from_planned", "us"),
    Column("dns_us", "row", "kpatrol.phase.name_lookup", "us"),
    Column("connect_us", "row", "kpatrol.phase.connect", "us"),
    Column("tls_us", "row", "kpatrol.phase.tls", "us"),
    Column("ttfb_us", "row", "kpatrol.phase.first_byte", "us"),
    Column("sent", "row", "kpatrol.packets.sent", "packets"),
    Column("lost", "row", "kpatrol.packets.lost", "packets"),
    Column("segs_out", "row", "kpatrol.tcp.segments_out", "segments"),
    Column("segs_in", "row", "kpatrol.tcp.segments_in", "segments"),
    Column("retrans", "row", "kpatrol.tcp.retransmits", "segments"),
    Column("min_rtt_us", "row", "kpatrol.tcp.min_rtt", "us"),
    Column("req_bytes", "row", "http.request.body.size", "bytes"),
    Column("resp_bytes", "row", "http.response.body.size", "bytes"),
    Column("size", "target", "kpatrol.size", "bytes"),
    Column("attempt", "row", "http.request.resend_count"),
    Column("there_us", "row", "kpatrol.duration_there", "us"),
    Column("trace_id", "batch", ""),
)
