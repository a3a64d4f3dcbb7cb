"""librdkafka's mock cluster: speaks Kafka's protocol on a port, and answers with the error that a test asks for.

A real broker cannot be told to answer one SyncGroup wrongly; this one can. See librdkafka's rdkafka_mock.h.
"""

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka

JOIN_GROUP, HEARTBEAT, SYNC_GROUP = 11, 12, 14
UNKNOWN_SERVER_ERROR, REBALANCE_IN_PROGRESS = -1, 27
_PRODUCER = 0


@dataclass(frozen=True)
class MockBroker:
    """One broker of a mock cluster; `bootstrap` is its address."""

    library: ctypes.CDLL
    cluster: int
    bootstrap: str

    def answer_wrongly(self, request: int, *, times: int = 1, error: int = UNKNOWN_SERVER_ERROR) -> None:
        """Answer the next requests of that kind (their number in the protocol) with an error."""
        errors = (ctypes.c_int * times)(*[error] * times)
        push = self.library.rd_kafka_mock_push_request_errors_array
        push.restype = None
        push(ctypes.c_void_p(self.cluster), ctypes.c_int16(request), ctypes.c_size_t(times), errors)


@contextmanager
def running_mock(topics: Mapping[str, int]) -> Iterator[MockBroker]:
    """A mock cluster with these topics (name to number of partitions), gone at the end."""
    library = _library()
    text = ctypes.create_string_buffer(512)
    conf = library.rd_kafka_conf_new()
    handle = library.rd_kafka_new(_PRODUCER, ctypes.c_void_p(conf), text, ctypes.c_size_t(len(text)))
    assert handle, text.value
    try:
        cluster = library.rd_kafka_mock_cluster_new(ctypes.c_void_p(handle), 1)
        assert cluster
        try:
            library.rd_kafka_mock_group_initial_rebalance_delay_ms(ctypes.c_void_p(cluster), ctypes.c_int32(200))
            for name, partitions in topics.items():
                failed = library.rd_kafka_mock_topic_create(ctypes.c_void_p(cluster), name.encode(), partitions, 1)
                assert not failed, name
            address = library.rd_kafka_mock_cluster_bootstraps(ctypes.c_void_p(cluster))
            yield MockBroker(library=library, cluster=cluster, bootstrap=address.decode())
        finally:
            library.rd_kafka_mock_cluster_destroy(ctypes.c_void_p(cluster))
    finally:
        library.rd_kafka_destroy(ctypes.c_void_p(handle))


def _library() -> ctypes.CDLL:
    """The wheel's own librdkafka. Raises AssertionError where the wheel is laid out otherwise."""
    assert confluent_kafka.__file__ is not None
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    found = sorted(folder.glob("librdkafka-*.so*"))
    assert len(found) == 1, f"{folder}: expected one librdkafka, found {found} ({sys.platform})"
    library = ctypes.CDLL(str(found[0]))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library
