"""Probes that the responder drops by itself: exactly those asked for."""

import pytest

from producers.responder.own_drops import Drop, OwnDrops, parse


def test_the_text_says_how_many_and_whose() -> None:
    assert parse("") == ()
    assert parse("0.2, 1/50@node-1") == (Drop(share=0.2), Drop(every=50, source="node-1"))


@pytest.mark.parametrize("text", ["2", "0", "-0.1", "1/0", "1/x", "20%", "nan", "@node-1"])
def test_what_is_no_share_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: SHARE or 1/N"):
        parse(text)


def test_every_nth_of_one_source_only() -> None:
    drops = OwnDrops([Drop(every=3, source="a")])
    assert [drops.takes("a") for _ in range(6)] == [False, False, True, False, False, True]
    assert not any(drops.takes("b") for _ in range(9))
    assert (drops.dropped, drops.examined) == (2, 6)


def test_a_share_is_drawn_for_each_probe() -> None:
    numbers = iter([0.1, 0.3, 0.19, 0.2])
    drops = OwnDrops([Drop(share=0.2)], draw=lambda: next(numbers))
    assert [drops.takes("a") for _ in range(4)] == [True, False, True, False]
    assert (drops.dropped, drops.examined) == (2, 4)
