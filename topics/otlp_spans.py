"""otlp-spans-v1: requests and rounds as OTLP spans, for the OpenTelemetry Collector's Kafka receiver (`otlp_proto`).

Written by the traces service where it is told to (KPATROL_TRACES_TOPIC), read by a Collector of the user's; empty
otherwise. A record is an ExportTraceServiceRequest in protobuf; here it stays bytes, checked for its outermost frame
only. Key: the agent, or the task of a verdict. Source: opentelemetry-proto, collector/trace/v1/trace_service.proto.
"""

from topics.spec import DAY_S, InvalidMessage, Topic

# Field 1 (resource_spans), length-delimited.
_RESOURCE_SPANS = 0x0A


def check(data: bytes) -> bytes:
    """The request as it came. Raises InvalidMessage where it is not a row of resource_spans."""
    place = 0
    while place < len(data):
        if data[place] != _RESOURCE_SPANS:
            raise InvalidMessage(f"byte {place}: found {data[place]}, expected resource_spans (10)")
        size, place = _varint(data, place + 1)
        place += size
    if not data or place != len(data):
        raise InvalidMessage(f"found {len(data)} bytes, the fields take {place}")
    return data


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        shift += 7
        if byte < 0x80:
            return value, place
    raise InvalidMessage(f"byte {place}: a length that does not end")


def encode(data: bytes) -> bytes:
    """The request as it is."""
    return data


# One empty resource_spans.
EXAMPLE = bytes((_RESOURCE_SPANS, 0))

TOPIC: Topic[bytes] = Topic(
    name="otlp-spans-v1",
    writers=("traces",),
    readers=("reader",),
    key=lambda _: b"otlp",
    encode=encode,
    decode=check,
    example=EXAMPLE,
    partitions=4,
    may_grow=True,
    retention_s=DAY_S // 4,
    dead_letters=False,
)
