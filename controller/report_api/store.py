"""The controller's only door to ClickHouse: its views, by a reader's account, in threads."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import clickhouse_connect
import msgspec
from clickhouse_connect.driver.exceptions import ClickHouseError

from topics.connection import BadConfiguration
from topics.round_verdicts import RoundVerdict

T = TypeVar("T")

_TASKS = """
SELECT task, task_uid AS uid, any(kind) AS kind, toUnixTimestamp64Milli(min(task_created)) AS created_ms,
    toUnixTimestamp64Milli(max(round_at)) AS last_ms, max(round_number) AS newest,
    uniqExact(round_number) AS rounds, argMax(verdict, (round_number, revision)) AS verdict
FROM v_round_revision GROUP BY task, task_uid ORDER BY last_ms, uid
"""
# Documents are large: only those asked for are read, by the key that their table is sorted by.
_NEWEST = """
SELECT task_uid AS uid, document FROM v_round_revision
WHERE task IN {tasks:Array(String)} AND (task, round_at, round_id, revision) IN (
    SELECT task, round_at, round_id, revision FROM v_round_revision
    WHERE task IN {tasks:Array(String)} AND task_uid IN {uids:Array(String)}
        AND ({number:UInt32} = 0 OR round_number = {number:UInt32})
    ORDER BY round_number DESC, revision DESC LIMIT 1 BY task_uid
)
"""
_FAILED = """
SELECT task_uid AS uid, round_number FROM v_round_revision
WHERE task IN {tasks:Array(String)} AND task_uid IN {uids:Array(String)}
GROUP BY task_uid, round_number HAVING argMax(verdict, revision) = 'fail' ORDER BY round_number
"""
# The verdict on a round comes after its end: what was judged before began and ended before.
_BESIDE = """
SELECT task, any(kind) AS kind, toUnixTimestamp64Micro(toDateTime64(round_at, 6, 'UTC')) AS start_us,
    any(JSONExtractRaw(document, 'spec')) AS spec
FROM v_round_revision
WHERE round_at BETWEEN fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC')
        AND fromUnixTimestamp64Milli({until_ms:Int64}, 'UTC')
    AND verdict_at >= fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC')
GROUP BY task, round_at
"""
# How long before the end of a round others may have begun that still ran.
BESIDE_MS = 3_600_000


class CannotRead(Exception):
    """ClickHouse cannot be reached or refuses: the text says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """A task (one uid) as its rounds show it; ``task`` is ``kind/name``, ``kind`` the custom resource's."""

    task: str
    uid: str
    kind: str
    created_ms: int
    last_ms: int
    newest: int
    rounds: int
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLine:
    """One agent's requests to one target in a round. Delays are of successful requests, from the sent time.

    ``agent_targets`` is how many targets the agent had in all.
    """

    agent: str
    node: str
    pod: str
    target: str
    dst: str
    address: str
    port: int
    protocol: str
    layer: str
    size: int
    finished: int
    ok: int
    unsent: int
    statuses: Mapping[int, int]
    errors: Mapping[str, int]
    bytes: int
    first_us: int
    last_us: int
    agent_targets: int
    packets_sent: int
    packets_lost: int
    mean_us: float
    min_us: int
    max_us: int
    quantiles_us: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A round that began shortly before: what it asks of the agents beside another."""

    task: str
    kind: str
    start_us: int
    spec: Mapping[str, Any]


class History(Protocol):
    """What the rounds of the past came to."""

    async def tasks(self) -> Sequence[TaskLine]:
        """Every task that a verdict was told of, oldest last round first. Raises CannotRead."""
        ...

    async def verdicts(self, tasks: Sequence[TaskLine], *, number: int = 0) -> Mapping[str, RoundVerdict]:
        """By uid the newest revision of a round of each task, by default of its newest round. Raises CannotRead."""
        ...

    async def failed_rounds(self, tasks: Sequence[TaskLine]) -> Mapping[str, Sequence[int]]:
        """By uid the numbers of the rounds that failed. Raises CannotRead."""
        ...

    async def target_lines(
        self, rounds: Sequence[RoundVerdict], *, limit: int, offset: int = 0, agent: str = ""
    ) -> Mapping[int, Sequence[TargetLine]]:
        """By round id its targets, worst first: ``limit`` of them behind the first ``offset``. Raises CannotRead."""
        ...

    async def beside(self, minute: int) -> Sequence[Beside]:
        """Rounds that may have run in that minute since the epoch. Raises CannotRead."""
        ...


class ClickHouseHistory:
    """:class:`History` from ClickHouse. Connects when first asked, and again after a failure."""

    def __init__(self, *, url: str, password: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadConfiguration(
                f"KPATROL_CLICKHOUSE_URL: found {url!r}, expected http://user@host:port/database of a reader"
            )
        self._where = f"{parts.hostname}:{parts.port or 8123}"
        self._connect: Callable[[], Any] = functools.partial(
            clickhouse_connect.get_client,
            host=parts.hostname,
            port=parts.port or 8123,
            username=parts.username or "reader",
            password=parts.password or password,
            database=parts.path.strip("/") or "kpatrol",
            interface=parts.scheme,
            autogenerate_session_id=False,
            connect_timeout=5,
            send_receive_timeout=30,
        )
        self._client: Any = None
        self._lock = threading.Lock()
        self._target_lines = files("controller.report_api").joinpath("target_lines.sql").read_text()

    async def tasks(self) -> Sequence[TaskLine]:
        return [TaskLine(**row) for row in await self._rows(_TASKS, {})]

    async def verdicts(self, tasks: Sequence[TaskLine], *, number: int = 0) -> Mapping[str, RoundVerdict]:
        rows = await self._rows(_NEWEST, _whose(tasks) | {"number": number})
        return {row["uid"]: msgspec.json.decode(row["document"], type=RoundVerdict) for row in rows}

    async def failed_rounds(self, tasks: Sequence[TaskLine]) -> Mapping[str, Sequence[int]]:
        found: dict[str, list[int]] = {}
        for row in await self._rows(_FAILED, _whose(tasks)):
            found.setdefault(row["uid"], []).append(row["round_number"])
        return found

    async def target_lines(
        self, rounds: Sequence[RoundVerdict], *, limit: int, offset: int = 0, agent: str = ""
    ) -> Mapping[int, Sequence[TargetLine]]:
        found: dict[int, list[TargetLine]] = {}
        # Rounds of one day are asked for at once: rows are kept by day.
        for together in _by_day(rounds):
            parameters = {
                "round_ids": [told.round_id for told in together],
                "first_ms": min(told.start_us for told in together) // 1000,
                "last_ms": max(told.start_us for told in together) // 1000,
                "until_ms": max(max(told.deadline_us, told.at_us) for told in together) // 1000 + 1,
                "agent": agent,
                "limit": limit,
                "offset": offset,
            }
            for row in await self._rows(self._target_lines, parameters):
                found.setdefault(row.pop("round_id"), []).append(TargetLine(**row))
        return found

    async def beside(self, minute: int) -> Sequence[Beside]:
        from_ms = minute * 60_000
        times = {"since_ms": from_ms - BESIDE_MS, "from_ms": from_ms, "until_ms": from_ms + 60_000}
        rows = await self._rows(_BESIDE, times)
        return [Beside(**row | {"spec": msgspec.json.decode(row["spec"] or "{}")}) for row in rows]

    async def _rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._ask, sql, dict(parameters))

    def _ask(self, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
                client = self._client
            return list(client.query(sql, parameters=parameters).named_results())
        except (ClickHouseError, OSError) as error:
            with self._lock:
                self._client = None
            raise CannotRead(f"ClickHouse at {self._where}: {_short(error)}") from error


def _whose(tasks: Sequence[TaskLine]) -> dict[str, Any]:
    return {"tasks": [task.task for task in tasks], "uids": [task.uid for task in tasks]}


def _by_day(rounds: Sequence[RoundVerdict]) -> list[list[RoundVerdict]]:
    days: dict[int, list[RoundVerdict]] = {}
    for told in rounds:
        days.setdefault(told.start_us // 86_400_000_000, []).append(told)
    return list(days.values())


def _short(error: Exception) -> str:
    text = str(error)
    if "Connection refused" in text:
        return "connection refused"
    return text.splitlines()[0] if text else type(error).__name__
