"""A webhook: the transition as JSON (or a template's text) by POST, signed with a shared secret.

The signature is HMAC-SHA-256 over `<timestamp>.<body>`, in hex; the timestamp (seconds) is in a header of its own, so
that a receiver can refuse what is old.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Template

from streams.delivery.base import Doors, idempotency_key, plain, post
from topics.alarms import AlarmRecord

SIGNATURE, TIMESTAMP, KEY = "X-Kpatrol-Signature", "X-Kpatrol-Timestamp", "Idempotency-Key"


def signature(*, secret: bytes, timestamp: int, body: bytes) -> str:
    """`sha256=<hex>`, as in the header."""
    return "sha256=" + hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()


def body_of(record: AlarmRecord, template: Template | None) -> bytes:
    """The record as JSON; with a template its text, whose values are written as inside of a JSON string."""
    values = plain(record)
    if template is None:
        return json.dumps(values, ensure_ascii=False).encode()
    return template.substitute(
        {name: json.dumps(str(v), ensure_ascii=False)[1:-1] for name, v in values.items()}
    ).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One URL."""

    name: str
    url: str
    secret: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    template: Template | None = None
    clock: Callable[[], float] = time.time

    async def deliver(self, record: AlarmRecord, doors: Doors) -> None:
        """POST it."""
        body, timestamp = body_of(record, self.template), int(self.clock())
        headers = {"Content-Type": "application/json", **self.headers, KEY: idempotency_key(record)}
        headers[TIMESTAMP] = str(timestamp)
        if self.secret:
            headers[SIGNATURE] = signature(secret=self.secret, timestamp=timestamp, body=body)
        await post(url=self.url, body=body, headers=headers, doors=doors)
