"""The door: what is tried again and what is not."""

import socket

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from streams.clickhouse import Attempts, ClickHouse, ClickHouseAway, ClickHouseRefused, translated
from topics.connection import BadConfiguration


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_there_is_away_after_a_bounded_number_of_attempts() -> None:
    waits: list[float] = []
    door = ClickHouse(
        url=f"http://writer@127.0.0.1:{closed_port()}/kpatrol", attempts=Attempts(count=5), sleep=waits.append
    )
    assert not door.ping()
    with pytest.raises(ClickHouseAway, match=r"127\.0\.0\.1"):
        door.query_rows("SELECT 1")
    assert waits == [0.1, 0.2, 0.4, 0.8]


def test_waits_double_up_to_the_longest() -> None:
    assert Attempts(count=6, first_wait_s=1, longest_wait_s=5).waits_s() == [1, 2, 4, 5, 5]
    assert Attempts(count=1).waits_s() == []


def test_wait_ready_gives_up_in_time() -> None:
    now = iter([0.0, 1.0, 2.0, 3.0])
    slept: list[float] = []
    door = ClickHouse(url=f"http://127.0.0.1:{closed_port()}", sleep=slept.append)
    with pytest.raises(ClickHouseAway):
        door.wait_ready(timeout_s=2.0, clock=lambda: next(now))
    assert len(slept) == 1


def test_passing_troubles_are_told_from_wrong_requests() -> None:
    assert isinstance(translated(OperationalError("connection reset"), "x"), ClickHouseAway)
    assert isinstance(translated(DatabaseError("memory", code=241), "x"), ClickHouseAway)
    assert isinstance(translated(DatabaseError("too many", code=202), "x"), ClickHouseAway)
    refused = translated(DatabaseError("no such table", code=60), "x")
    assert isinstance(refused, ClickHouseRefused)
    assert refused.code == 60


def test_a_bad_url_is_named_and_a_password_never() -> None:
    with pytest.raises(BadConfiguration, match="found 'ftp://x'"):
        ClickHouse(url="ftp://x")
    with pytest.raises(BadConfiguration, match="KPATROL_CLICKHOUSE_URL"):
        ClickHouse.from_env({})
    assert "secret" not in repr(ClickHouse(url="http://u@h:1/d", password="secret"))


def test_only_tables_with_provenance_are_read_back() -> None:
    with pytest.raises(ValueError, match="round"):
        ClickHouse(url="http://h").stored_offsets("round", 0, 0)
