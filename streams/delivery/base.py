"""What every kind of hook shares: the transition as plain values, its idempotency key, and how a delivery ends."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
import msgspec

from topics.alarms import AlarmClosed, AlarmOpened, AlarmRecord

STATES = {AlarmOpened: "opened", AlarmClosed: "closed"}


class TryAgain(Exception):
    """Not delivered, and it may be later; `after_s` is what the other side asked for."""

    def __init__(self, message: str, *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Undeliverable(Exception):
    """Not delivered, and the same again would fail again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What hooks reach the outside by."""

    http: aiohttp.ClientSession
    timeout_s: float = 10.0


class Hook(Protocol):
    """One receiver."""

    @property
    def name(self) -> str:
        """Its name in the file."""
        ...

    async def deliver(self, record: AlarmRecord, doors: Doors) -> None:
        """Return when the receiver has it. Raises TryAgain, Undeliverable."""
        ...


def state(record: AlarmRecord) -> str:
    """opened, updated or closed."""
    return STATES.get(type(record), "updated")


def idempotency_key(record: AlarmRecord) -> str:
    """One for each transition, the same however often it is delivered; fit for a header."""
    return f"{quote(record.alarm_id, safe=':/')}:{record.transition}"


def plain(record: AlarmRecord) -> dict[str, Any]:
    """The record's fields, its state, its key, and its times as RFC 3339."""
    return {
        **msgspec.structs.asdict(record),
        "state": state(record),
        "idempotency_key": idempotency_key(record),
        "at": rfc3339(record.at_us),
        "since": rfc3339(record.since_us),
    }


def rfc3339(at_us: int) -> str:
    """Microseconds since the epoch as RFC 3339, UTC."""
    when = datetime.datetime.fromtimestamp(at_us / 1e6, tz=datetime.UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def post(*, url: str, body: bytes, headers: Mapping[str, str], doors: Doors) -> None:
    """POST once. Raises TryAgain for what may pass (no answer, 408, 425, 429, 5xx), Undeliverable for the rest."""
    timeout = aiohttp.ClientTimeout(total=doors.timeout_s)
    try:
        async with doors.http.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False) as reply:
            if 200 <= reply.status < 300:
                return
            said = (await reply.content.read(300)).decode(errors="replace").strip()
            text = f"{reply.status} {reply.reason}: {said}" if said else f"{reply.status} {reply.reason}"
            if reply.status in (408, 425, 429) or reply.status >= 500:
                raise TryAgain(text, after_s=_seconds(reply.headers.get("Retry-After", "")))
            raise Undeliverable(text)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TryAgain(f"{type(error).__name__}: {error}") from error


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() else 0.0
