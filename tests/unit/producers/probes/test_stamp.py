"""STAMP packets byte by byte, and what both ends of a session remember."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.probes import stamp
from producers.probes.stamp_session import (
    REPLY_LOST,
    REPLY_REORDERED,
    REQUEST_DUPLICATED,
    REQUEST_LOST,
    REQUEST_REORDERED,
    ReflectorSession,
    SenderSession,
)

U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=253)


def request_of(*, number: int = 3, seq: int = 9, size: int = 0, agent: str = "node-1") -> bytes:
    form = stamp.RequestForm(ssid=77, round_id=0xAB, target=2, agent=agent, size=size)
    return form.packet(number=number, seq=seq, stamp=stamp.ntp(5_000_000))


def reply_to(data: bytes, seen: stamp.Seen, *, agent: str = "node-2", incarnation: int = 1, took_us: int = 0) -> bytes:
    request = stamp.parse_request(data)
    assert request is not None
    came = stamp.ntp(7_000_000)
    sent = stamp.ntp(7_000_000 + took_us)
    return stamp.reply(
        to=request, size=len(data), agent=agent, incarnation=incarnation, seen=seen, received=came, sent=sent, ttl=64
    )


def test_the_fields_stand_where_rfc_8762_puts_them() -> None:
    data = request_of(size=200)
    assert len(data) == 200
    assert struct.unpack_from("!IQ", data) == (3, stamp.ntp(5_000_000))
    assert data[13] != 0  # the multiplier of the error estimate must not be 0 (RFC 4656, 4.1.2)
    assert struct.unpack_from("!H", data, 14) == (77,)
    assert data[16:44] == bytes(28)
    assert data[44:46] == bytes([0x80, 252])
    back = reply_to(data, stamp.Seen(5, 3, 0b1011, 0), took_us=10)
    assert len(back) == 200
    assert struct.unpack_from("!IQ", back) == (5, stamp.ntp(7_000_010))
    assert struct.unpack_from("!HQIQ", back, 14) == (77, stamp.ntp(7_000_000), 3, stamp.ntp(5_000_000))
    assert back[36:38] == data[12:14]
    assert (back[40], back[38:40], back[41:44]) == (64, bytes(2), bytes(3))
    assert back[44:46] == bytes([0, 253])


def test_the_tlvs_fill_the_packet_exactly() -> None:
    for size in range(stamp.MIN_BYTES, stamp.MIN_BYTES + 40):
        for data in (request_of(size=size), reply_to(request_of(size=size), stamp.Seen(0, 0, 1, 0))):
            offset = stamp.BASE_BYTES
            while offset < len(data):
                _, kind, length = struct.unpack_from("!BBH", data, offset)
                assert kind in (1, 252, 253)
                offset += 4 + length
            assert offset == len(data) == size


@given(number=U32, seq=U32, ssid=U16, round_id=U64, target=U16, agent=NAMES, size=st.integers(0, 1500), sent=U64)
def test_a_request_survives_the_wire(
    number: int, seq: int, ssid: int, round_id: int, target: int, agent: str, size: int, sent: int
) -> None:
    form = stamp.RequestForm(ssid=ssid, round_id=round_id, target=target, agent=agent, size=size)
    data = form.packet(number=number, seq=seq, stamp=sent)
    assert len(data) == form.size == max(stamp.MIN_BYTES, size, 63 + len(agent))
    found = stamp.parse_request(data)
    assert found is not None
    assert (found.number, found.seq, found.ssid, found.round_id) == (number, seq, ssid, round_id)
    assert (found.target, found.agent, found.stamp) == (target, agent, sent)
    assert stamp.parse_reply(data) is None
    assert stamp.quoted(data[:28]) == (ssid, number)


@given(
    order=U32, highest=U32, mask=U64, flags=st.integers(0, 7), incarnation=U64, agent=NAMES, size=st.integers(0, 1500)
)
def test_a_reply_survives_the_wire(
    order: int, highest: int, mask: int, flags: int, incarnation: int, agent: str, size: int
) -> None:
    data = request_of(size=size)
    back = reply_to(data, stamp.Seen(order, highest, mask, flags), agent=agent, incarnation=incarnation)
    found = stamp.parse_reply(back)
    assert found is not None
    assert len(back) == len(data)
    assert (found.order, found.highest, found.mask, found.flags) == (order, highest, mask, flags)
    assert (found.incarnation, found.number, found.ssid) == (incarnation, 3, 77)
    assert found.digest == stamp.name_digest(agent)
    assert agent.startswith(found.agent)
    assert len(found.agent) >= min(len(agent), 26)
    assert stamp.parse_request(back) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    for parse in (stamp.parse_request, stamp.parse_reply, stamp.quoted):
        parse(data)  # type: ignore[operator]


@given(data=st.data(), cut=st.integers(0, 103))
def test_a_cut_packet_is_none_of_ours(data: st.DataObject, cut: int) -> None:
    whole = request_of(size=stamp.MIN_BYTES)
    assert stamp.parse_request(whole[:cut]) is None


@given(st.integers(0, 1 << 52), st.integers(0, 1 << 50))
def test_times_are_exact_to_the_microsecond(at_us: int, later_us: int) -> None:
    assert stamp.between_us(stamp.ntp(at_us + later_us), stamp.ntp(at_us)) == later_us
    assert stamp.between_us(stamp.ntp(at_us), stamp.ntp(at_us + later_us)) == -later_us


@given(st.lists(st.integers(0, 200), min_size=1, max_size=80))
def test_the_reflector_knows_what_has_come(numbers: list[int]) -> None:
    session, came = ReflectorSession(), list[int]()
    for order, number in enumerate(numbers):
        seen = session.came(number, 1)
        window = came and max(came) - number < 64
        expected = 0
        if number in came and window:
            expected = stamp.DUPLICATE
        elif came and number <= max(came):
            expected = stamp.REORDERED
        came.append(number)
        assert (seen.order, seen.highest, seen.flags) == (order, max(came), expected)
        assert seen.mask == sum(1 << k for k in range(64) if seen.highest - k in came)


@pytest.mark.parametrize("seed", range(5))
def test_every_lost_packet_gets_its_direction_from_later_answers(seed: int) -> None:
    rng = random.Random(seed)
    reflector, sender, fates = ReflectorSession(), SenderSession(), {}
    for number in range(2000):
        data = request_of(number=number)
        if number < 1999 and rng.random() < 0.2:
            fates[number] = REQUEST_LOST
            continue
        back = reply_to(data, reflector.came(number, 1))
        if number < 1999 and rng.random() < 0.2:
            fates[number] = REPLY_LOST
            continue
        found = stamp.parse_reply(back)
        assert found is not None
        sender.answered(found, 100)
    assert len(fates) > 600
    assert {number: sender.fate(number) for number in fates} == fates


def test_without_a_later_answer_nothing_is_claimed() -> None:
    sender = SenderSession()
    assert sender.fate(0) == ""
    found = stamp.parse_reply(reply_to(request_of(number=5), ReflectorSession().came(5, 1)))
    assert found is not None
    sender.answered(found, 100)
    assert (sender.fate(4), sender.fate(6)) == (REQUEST_LOST, "")


def test_a_reflector_that_began_anew_proves_nothing_about_before() -> None:
    sender, first = SenderSession(), ReflectorSession()
    for number, reflector, incarnation in ((0, first, 1), (2, first, 1), (3, ReflectorSession(), 2)):
        found = stamp.parse_reply(
            reply_to(request_of(number=number), reflector.came(number, 1), incarnation=incarnation)
        )
        assert found is not None
        sender.answered(found, 100)
    # The second one has seen neither 1 nor 2; the first had 2.
    assert [sender.fate(number) for number in (1, 2)] == ["", ""]


def test_reordering_and_copies_are_flagged_by_direction() -> None:
    reflector, sender = ReflectorSession(), SenderSession()
    replies = {}
    for number in (0, 2, 1, 3, 3):
        replies[len(replies)] = stamp.parse_reply(reply_to(request_of(number=number), reflector.came(number, 1)))
    flags = []
    for i in (0, 1, 2, 4, 3):
        found = replies[i]
        assert found is not None
        flags.append(sender.answered(found, 100).flags)
    assert flags == [0, 0, REQUEST_REORDERED, REQUEST_DUPLICATED, REPLY_REORDERED]


def test_delay_variation_needs_no_common_clock() -> None:
    """The clocks are an hour apart; the way there takes 100 µs and 0 … 900 more, the way back 100."""
    sender, apart_us, found_us = SenderSession(), 3_600_000_000, []
    for extra_us in (500, 0, 900, 300):
        at_us = 5_000_000
        came_us = at_us + apart_us + 100 + extra_us
        seen = stamp.Seen(0, 0, 1, stamp.STATELESS)
        request = stamp.parse_request(request_of())
        assert request is not None
        data = stamp.reply(
            to=request, size=104, agent="n", incarnation=1, seen=seen, received=stamp.ntp(came_us),
            sent=stamp.ntp(came_us + 40), ttl=1,
        )  # fmt: skip
        reply = stamp.parse_reply(data)
        assert reply is not None
        facts = sender.answered(reply, 100 + extra_us + 40 + 100)
        assert facts.net_us == 200 + extra_us
        found_us.append(facts.there_us)
    # From the fastest round trip on the level is right, too: both ways took the same then.
    assert found_us[1:] == [100, 1000, 400]
