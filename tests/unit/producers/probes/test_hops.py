"""What is made of the answers to packets with small hop limits; the packets themselves: tests/integration."""

from producers.probes.hops import BEYOND, End, Way, ends_of
from topics.outcome import Layer, Proto
from topics.share import Stream
from topics.task_rounds import Target

END = End(agent="far", node="node-far", address="10.3.0.2", port=862)
LIMIT = 24


def asked(*limits: int) -> Way:
    way = Way(end=END)
    for limit in limits:
        way.sends(limit)
    return way


def test_a_way_ends_at_the_first_hop_limit_that_arrives() -> None:
    way = asked(1, 2, 3, 4, 5)
    way.hears(4, END.address, arrived=True)
    way.hears(3, END.address, arrived=True)
    way.hears(5, END.address, arrived=True)
    way.hears(1, "10.1.0.1", arrived=False)
    told = way.told()
    assert told.reached
    assert [hop.address for hop in told.hops] == ["10.1.0.1", "", END.address], "a silent router is no end"
    assert [(hop.sent, hop.answered) for hop in told.hops] == [(1, 1), (1, 0), (1, 1)]
    assert way.last(LIMIT, again=True) == 3


def test_a_way_without_an_end_is_told_up_to_the_last_that_answered() -> None:
    way = asked(*range(1, LIMIT + 1))
    way.hears(2, "10.2.0.2", arrived=False)
    told = way.told()
    assert (told.reached, len(told.hops), told.asked) == (False, 2, LIMIT)
    assert way.last(LIMIT, again=False) == LIMIT
    assert way.last(LIMIT, again=True) == 2 + BEYOND
    assert way.last(3, again=True) == 3


def test_who_says_that_nothing_goes_through_is_the_end_unless_something_arrives() -> None:
    way = asked(1, 2, 3)
    way.is_barred(3, "10.1.0.1", "prohibited")
    way.is_barred(2, "10.1.0.1", "prohibited")
    assert (way.told().error, len(way.told().hops)) == ("prohibited", 2)
    way.hears(3, END.address, arrived=True)
    assert (way.told().error, way.told().reached) == ("", True)


def test_an_answer_is_counted_no_more_often_than_was_asked_and_never_unasked() -> None:
    way = asked(1)
    way.hears(1, "10.1.0.1", arrived=False)
    way.hears(1, "10.1.0.1", arrived=False)
    way.hears(7, "10.9.0.1", arrived=False)
    (hop,) = way.told().hops
    assert (hop.sent, hop.answered) == (1, 1)


def test_each_agent_asked_by_udp_is_traced_once_whatever_the_sizes() -> None:
    def stream(proto: Proto, size: int, agent: str = "far") -> Stream:
        target = Target(
            name="n", dst="node-far", proto=proto, layer=Layer.pod, address=END.address, port=862, agent=agent,
            dst_node="node-far", size=size,
        )  # fmt: skip
        return Stream(target=target, requests=1)

    streams = [stream(Proto.udp, 0), stream(Proto.udp, 1024), stream(Proto.http, 0), stream(Proto.udp, 0, agent="")]
    assert ends_of(streams) == [END]
