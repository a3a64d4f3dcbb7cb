"""Columnar batches on the wire: a plain Arrow IPC stream of one record batch, its head as JSON in the schema metadata.

Compression is Kafka's (zstd), never Arrow's. Rows arrive as `array.array` or bytes and are wrapped, not copied.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from topics.spec import InvalidMessage

HEAD = b"kpatrol"


def encode(*, schema: pa.Schema, head: bytes, columns: Mapping[str, Any], rows: int) -> bytes:
    """Arrow IPC stream of `rows` rows; every fixed-width column of `schema` from an object with the buffer protocol.

    String columns come as ready Arrow arrays. Raises ValueError when a column is too short.
    """
    arrays = []
    for field in schema:
        column = columns[field.name]
        if isinstance(column, pa.Array):
            arrays.append(column)
            continue
        buffer = pa.py_buffer(column)
        if buffer.size * 8 < rows * field.type.bit_width:
            raise ValueError(f"column {field.name}: {buffer.size} bytes are too few for {rows} rows")
        arrays.append(pa.Array.from_buffers(field.type, rows, [None, buffer]))
    stamped = schema.with_metadata({HEAD: head})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, stamped) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=stamped))
    return sink.getvalue().to_pybytes()


def decode(*, schema: pa.Schema, data: bytes) -> tuple[bytes, pa.RecordBatch]:
    """(head, rows) of an encoded batch. Raises InvalidMessage when it is not of that schema."""
    try:
        with pa.ipc.open_stream(data) as reader:
            batch = reader.read_next_batch()
            metadata = reader.schema.metadata or {}
    except (pa.ArrowInvalid, StopIteration, OSError) as error:
        raise InvalidMessage(f"not an Arrow IPC stream: {error}") from error
    if HEAD in metadata and batch.schema.equals(schema):
        return metadata[HEAD], batch
    missing = [f.name for f in schema if f.name not in batch.schema.names]
    if missing:
        raise InvalidMessage(f"columns missing: {', '.join(missing)}")
    wrong = [f.name for f in schema if batch.schema.field(f.name).type != f.type]
    if wrong:
        raise InvalidMessage(f"columns of another type: {', '.join(wrong)}")
    if HEAD not in metadata:
        raise InvalidMessage("no head in the schema metadata")
    return metadata[HEAD], batch.select(schema.names)
