"""What fits is found out by the agent; what the task says in bytes stays."""

from pathlib import Path

from producers.sizes import with_real_sizes
from topics.outcome import Layer, Proto
from topics.share import Stream
from topics.task_rounds import FULL_SIZE, Target


def stream(address: str, size: int) -> Stream:
    target = Target(name="t", dst="t", proto=Proto.udp, layer=Layer.pod, address=address, port=1, size=size)
    return Stream(target=target, requests=3)


def test_only_the_full_size_is_replaced() -> None:
    streams = (stream("127.0.0.1", 0), stream("127.0.0.1", FULL_SIZE), stream("127.0.0.1", 1400))
    found = with_real_sizes(streams=streams, source_address="")
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    assert [s.target.size for s in found] == [0, min(65_507, mtu - 28), 1400]
    assert [s.requests for s in found] == [3, 3, 3]


def test_without_a_way_to_ask_the_least_mtu_of_all_counts() -> None:
    found = with_real_sizes(streams=(stream("some.name", FULL_SIZE), stream("240.0.0.1", FULL_SIZE)), source_address="")
    assert found[0].target.size == 1232
    assert 1232 <= found[1].target.size <= 65_507
