"""A round's sealed rows and an agent's receipts as Kafka records: heads filled in, columns encoded."""

import ipaddress

import pyarrow as pa

from producers.config import Identity, Serving
from producers.rows import SealedBatch
from producers.spool import Envelope
from topics import probe_receipts, probe_results
from topics.ids import agent_key
from topics.probe_receipts import ReceiptHead, Receipts
from topics.probe_results import BatchHead, BatchTarget
from topics.share import Stream
from topics.task_rounds import RoundScheduled


def source_address(*, streams: tuple[Stream, ...], serving: Serving) -> str:
    """The local address to send from; empty (the kernel's choice) where a share has both families."""
    families = {stream.target.family for stream in streams}
    if len(families) != 1:
        return ""
    return serving.ipv6 if families == {6} else serving.ipv4


def batch_targets(*, streams: tuple[Stream, ...], serving: Serving) -> tuple[BatchTarget, ...]:
    """The table that the rows' `target` column indexes: one line a stream, in the streams' order."""
    return tuple(
        BatchTarget(
            name=target.name,
            dst=target.dst,
            proto=target.proto,
            layer=target.layer,
            dst_node=target.dst_node,
            dst_zone=target.dst_zone,
            dst_rack=target.dst_rack,
            dst_ip=target.address if _is_address(target.address) else "",
            src_ip=serving.ipv6 if target.family == 6 else serving.ipv4,
            dst_port=target.port,
            family=target.family,
            size=target.size,
        )
        for target in (stream.target for stream in streams)
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Batches:
    """Makes the records of one round's batches."""

    def __init__(
        self,
        *,
        round_: RoundScheduled,
        streams: tuple[Stream, ...],
        identity: Identity,
        serving: Serving,
        incarnation: int,
        trace_id: bytes,
        version: str,
    ) -> None:
        self._targets = batch_targets(streams=streams, serving=serving)
        self._round = round_
        self._identity = identity
        self._incarnation = incarnation
        self._trace_id = trace_id.hex()
        self._version = version

    def envelope(self, *, batch: SealedBatch, batch_seq: int, shift_us: int) -> Envelope:
        """The record of one sealed batch; `shift_us` is how much later than scheduled the load was begun."""
        head = self._head(batch, batch_seq)
        columns = dict(batch.columns)
        if shift_us:
            planned = columns["planned_us"]
            columns["planned_us"] = type(planned)(planned.typecode, [value + shift_us for value in planned])
        return Envelope(
            topic=probe_results.TOPIC.name,
            key=agent_key(head.agent),
            headers=tuple(probe_results.headers(head, batch.rows)),
            value=probe_results.encode_columns(head=head, columns=columns, rows=batch.rows),
        )

    def _head(self, batch: SealedBatch, batch_seq: int) -> BatchHead:
        round_, identity = self._round, self._identity
        return BatchHead(
            round_id=round_.round_id,
            round_number=round_.number,
            start_us=round_.start_us,
            task=round_.task,
            task_uid=round_.task_uid,
            agent=identity.agent,
            incarnation=self._incarnation,
            batch_seq=batch_seq,
            node=identity.node,
            trace_id=self._trace_id,
            targets=self._targets,
            zone=identity.zone,
            rack=identity.rack,
            pod=identity.pod,
            cluster=round_.cluster or identity.cluster,
            version=self._version,
            peers=batch.peers,
            errors=batch.errors,
        )


def receipts_envelope(*, rows: pa.RecordBatch, identity: Identity, incarnation: int, batch_seq: int) -> Envelope:
    """The record of one batch of receipts."""
    head = ReceiptHead(
        agent=identity.agent,
        incarnation=incarnation,
        batch_seq=batch_seq,
        node=identity.node,
        zone=identity.zone,
        rack=identity.rack,
    )
    return Envelope(
        topic=probe_receipts.TOPIC.name,
        key=agent_key(identity.agent),
        headers=(
            ("agent", identity.agent.encode()),
            ("incarnation", str(incarnation).encode()),
            ("batch_seq", str(batch_seq).encode()),
            ("rows", str(rows.num_rows).encode()),
        ),
        value=probe_receipts.encode(Receipts(head=head, rows=rows)),
    )
