"""Identities that others recompute: known values, and no two requests alike."""

from topics.ids import round_id, span_id, splitmix64, traceparent

TRACE = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")


def test_splitmix64_has_its_published_values() -> None:
    # First outputs of the reference generator seeded with 0: state advances by the golden gamma.
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


def test_span_ids_of_a_round_differ() -> None:
    assert len({span_id(trace_id=TRACE, seq=i) for i in range(10_000)}) == 10_000


def test_traceparent_is_w3c() -> None:
    value = traceparent(trace_id=TRACE, seq=5)
    assert value == f"00-{TRACE.hex()}-{span_id(trace_id=TRACE, seq=5)}-01"
    assert len(value) == 55


def test_round_ids_depend_on_task_and_number_only() -> None:
    assert round_id(task_uid="u", number=1) == round_id(task_uid="u", number=1)
    ids = {round_id(task_uid=u, number=n) for u in ("u", "v") for n in range(100)}
    assert len(ids) == 200
