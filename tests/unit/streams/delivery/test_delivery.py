"""Delivery without a network: bodies, signatures, patience, what is given up."""

import asyncio
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from string import Template
from typing import Any

import aiohttp
import msgspec
import pytest

from streams.delivery.alertmanager import alerts
from streams.delivery.base import Doors, TryAgain, Undeliverable, idempotency_key
from streams.delivery.command import Command
from streams.delivery.read import Route
from streams.delivery.send import Patience, deliver
from streams.delivery.webhook import body_of, signature
from topics.alarms import EXAMPLE, AlarmClosed, AlarmRecord, AlarmUpdated


def as_kind(kind: type[AlarmRecord], **changes: Any) -> AlarmRecord:
    return kind(**{**msgspec.structs.asdict(EXAMPLE), **changes})


def test_the_signature_is_an_hmac_over_time_and_body() -> None:
    expected = hmac.new(b"s", b'17.{"a":1}', hashlib.sha256).hexdigest()
    assert signature(secret=b"s", timestamp=17, body=b'{"a":1}') == f"sha256={expected}"


def test_a_key_is_of_a_transition_and_fit_for_a_header() -> None:
    odd = as_kind(AlarmUpdated, alarm_id="netreach/ü:a b", transition=4)
    assert idempotency_key(odd) == "netreach/%C3%BC:a%20b:4"


def test_a_templates_values_cannot_break_its_json() -> None:
    record = as_kind(AlarmUpdated, sentence='says "no"\nand \\ more')
    text = body_of(record, Template('{"text": "${state}: ${sentence}"}'))
    assert json.loads(text) == {"text": 'updated: says "no"\nand \\ more'}
    assert json.loads(body_of(record, None))["sentence"] == record.sentence


def test_an_alert_keeps_its_labels_until_it_ends() -> None:
    (opened,) = alerts(EXAMPLE, labels={"cluster": "a"})
    assert opened["labels"] | {"cluster": "a", "severity": "critical", "element": "node-3"} == opened["labels"]
    assert opened["endsAt"] > opened["startsAt"]
    updated, other = alerts(as_kind(AlarmUpdated, severity="warning"), labels={})
    assert (updated["labels"]["severity"], other["labels"]["severity"]) == ("warning", "critical")
    closed, _ = alerts(as_kind(AlarmClosed, at_us=EXAMPLE.at_us), labels={})
    assert other["endsAt"] == closed["endsAt"] == "2026-09-21T14:13:30.000Z"


def test_waits_double_are_bounded_and_heed_what_was_asked() -> None:
    patience = Patience(first_wait_s=1, longest_wait_s=8)
    assert [patience.wait_s(n, asked_s=0, jitter=0) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, 8]
    assert patience.wait_s(1, asked_s=5, jitter=1) == 5
    assert patience.wait_s(1, asked_s=500, jitter=0) == 8
    assert patience.wait_s(2, asked_s=0, jitter=1) == 3


@dataclass
class Scripted:
    """A hook that ends as told, then well."""

    name: str
    ends: list[Exception] = field(default_factory=list)
    seen: int = 0

    async def deliver(self, record: AlarmRecord, doors: Doors) -> None:
        self.seen += 1
        if self.ends:
            raise self.ends.pop(0)


def deliver_to(*hooks: Any, total_s: float = 60.0, record: AlarmRecord = EXAMPLE) -> tuple[list[str], list[str]]:
    """(hooks given up, outcomes counted)."""
    counted: list[str] = []

    async def run() -> list[str]:
        async with aiohttp.ClientSession() as http:
            ended = await deliver(
                record,
                [Route(hook=hook) for hook in hooks],
                doors=Doors(http=http, timeout_s=30),
                patience=Patience(total_s=total_s, first_wait_s=0.001, longest_wait_s=0.002),
                counted=counted.append,
            )
            return [f"{one.hook} after {one.attempts}: {one.reason}" for one in ended]

    return asyncio.run(run()), sorted(counted)


def test_what_may_pass_is_tried_again_and_one_hook_does_not_hold_up_another() -> None:
    weak, good = Scripted("weak", [TryAgain("503"), TryAgain("503")]), Scripted("good")
    assert deliver_to(weak, good) == ([], ["ok", "ok", "retry", "retry"])
    assert (weak.seen, good.seen) == (3, 1)


def test_what_cannot_be_delivered_is_given_up() -> None:
    bad, away = Scripted("bad", [Undeliverable("400")]), Scripted("away", [TryAgain("refused")] * 9)
    assert deliver_to(bad)[0] == ["bad after 1: 400"]
    assert deliver_to(away, total_s=0)[0] == ["away after 1: refused"]


@pytest.mark.parametrize(("code", "ends"), [(0, []), (3, ["c after 1"]), (75, ["c after 1"])])
def test_a_commands_exit_code_decides(code: int, ends: list[str]) -> None:
    command = Command(name="c", command=("/bin/sh", "-c", f"cat >/dev/null; exit {code}"))
    given_up, counted = deliver_to(command, total_s=0)
    assert [one.partition(":")[0] for one in given_up] == ends
    assert counted == (["given_up"] if ends else ["ok"])


def test_a_program_that_is_not_there_is_given_up_at_once() -> None:
    (said,), _ = deliver_to(Command(name="c", command=("/no/such",)))
    assert said == "c after 1: /no/such: No such file or directory"
