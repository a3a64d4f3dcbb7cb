"""netchecker's JSON, key by key, and reports of netchecker's own agents read into ours. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controller.members import Heard
from controller.netchecker_api.presence import FOREIGN_GROUP, Check, Presence
from topics.agent_reports import AgentReport, TimedUrl

Json = dict[str, Any]

BODY_MOST_BYTES = 1 << 20
INTERVAL_MOST_S = 86_400


class BadReport(Exception):
    """A posted report that cannot be taken: names the key, what was found and what is allowed; an HTTP status."""

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def agent(item: Heard) -> Json:
    """One agent's record."""
    report = item.report
    return {
        "report_interval": math.ceil(report.interval_s),
        "nodename": report.node,
        "podname": report.pod or report.agent,
        "hostdate": rfc3339_nano(report.at_us),
        "uptime": report.uptime_s,
        "last_updated": rfc3339_nano(item.at_us),
        "nslookup": {name: list(addresses) or None for name, addresses in report.lookups.items()} or None,
        "network_probes": [probe(timed) for timed in report.timed_urls],
        "ips": {name: list(addresses) for name, addresses in report.interfaces.items()} or None,
    }


def probe(timed: TimedUrl) -> Json:
    """One timed URL; whole milliseconds, as netchecker has them."""
    return {
        "URL": timed.url,
        "ConnectionResult": int(timed.connected),
        "HTTPCode": timed.status,
        "Total": timed.total_us // 1000,
        "ContentTransfer": timed.transfer_us // 1000,
        "TCPConnection": timed.tcp_us // 1000,
        "DNSLookup": timed.dns_us // 1000,
        "Connect": timed.connect_us // 1000,
        "ServerProcessing": timed.server_us // 1000,
    }


def answer(found: Check) -> Json:
    """The connectivity check: netchecker's three keys (null where all is well), then the reasons."""
    return {
        "Message": found.message(),
        "Absent": None if found.ok else [item.name for item in found.of("absent")],
        "Outdated": None if found.ok else [item.name for item in found.of("outdated")],
        "Expected": found.expected,
        "NodeTrouble": [detail(item) for item in found.of("node")],
        "Starting": [item.name for item in found.of("starting")],
        "Left": [item.name for item in found.of("left")],
        "Details": [detail(item) for item in found.agents if item.state in ("absent", "outdated")],
        "Notes": [note for item in found.agents if item.state == "present" for note in item.notes],
        "Agents": [whole(item) for item in found.agents],
    }


def detail(item: Presence) -> Json:
    """One agent with its reason."""
    return {
        "Name": item.name,
        "Node": item.node,
        "State": item.state,
        "Reason": item.reason,
        "AgeSeconds": None if item.age_s is None else round(item.age_s, 1),
    }


def whole(item: Presence) -> Json:
    """One agent with all that is known."""
    more = {"Flavour": item.flavour, "Version": item.version, "IntervalSeconds": item.interval_s}
    return detail(item) | more | {"Notes": list(item.notes)}


def rfc3339_nano(at_us: int) -> str:
    """UTC with microseconds, as Go writes it."""
    return datetime.fromtimestamp(at_us / 1e6, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read_report(body: bytes, *, name: str, now_us: int) -> AgentReport:
    """A report that netchecker's agent posted under ``name``. Raises BadReport."""
    try:
        told = json.loads(body)
    except ValueError as error:
        raise BadReport(f"body: not JSON ({error}), expected netchecker's report") from error
    if not isinstance(told, dict):
        raise BadReport(f"body: found {type(told).__name__}, expected an object")
    interval_s = _number(told, "report_interval", least=1, most=INTERVAL_MOST_S)
    # Without its own word the flavour is told by the pod's name, as netchecker's server does.
    return AgentReport(
        agent=name,
        # Only the newest counts; a start of the agent does not show in what it posts.
        incarnation=1,
        node=_text(told, "nodename"),
        at_us=now_us,
        started_us=now_us,
        interval_s=float(interval_s),
        version="netchecker",
        group=FOREIGN_GROUP,
        flavour="host" if "hostnet" in name else "pod",
        pod=name,
        interfaces=_lists(told, "ips"),
        lookups=_lists(told, "nslookup"),
        timed_urls=tuple(_probe(item) for item in _items(told, "network_probes")),
        uptime_s=_number(told, "uptime", least=0, most=10**10, usual=0),
    )


def _probe(item: Any) -> TimedUrl:
    if not isinstance(item, dict):
        raise BadReport(f"network_probes: found {type(item).__name__}, expected objects")
    times = {
        "total_us": "Total",
        "transfer_us": "ContentTransfer",
        "tcp_us": "TCPConnection",
        "dns_us": "DNSLookup",
        "connect_us": "Connect",
        "server_us": "ServerProcessing",
    }
    read = {ours: _milliseconds(item, theirs) for ours, theirs in times.items()}
    connected = bool(_number(item, "ConnectionResult", least=0, most=1, usual=0))
    status = _number(item, "HTTPCode", least=0, most=999, usual=0)
    error = "" if connected and status else "no connection" if not connected else "no reply"
    return TimedUrl(url=_text(item, "URL"), connected=connected, status=status, error=error, **read)


def _milliseconds(item: Mapping[str, Any], key: str) -> int:
    """Microseconds. Every shipped agent says 9223372036854 where it did not measure: that is 0."""
    value = _number(item, key, least=0, most=2**63, usual=0)
    return value * 1000 if value < INTERVAL_MOST_S * 1000 else 0


def _number(told: Mapping[str, Any], key: str, *, least: int, most: int, usual: int | None = None) -> int:
    value = told.get(key, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadReport(f"{key}: found {value!r}, allowed: a number from {least} to {most}")
    return int(value)


def _text(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key, "")
    if not isinstance(value, str) or len(value) > 2048:
        raise BadReport(f"{key}: found {type(value).__name__}, allowed: text of up to 2048 characters")
    return value


def _items(told: Mapping[str, Any], key: str) -> list[Any]:
    value = told.get(key) or []
    if not isinstance(value, list) or len(value) > 256:
        raise BadReport(f"{key}: expected a list of up to 256")
    return value


def _lists(told: Mapping[str, Any], key: str) -> dict[str, tuple[str, ...]]:
    value = told.get(key) or {}
    if not isinstance(value, dict) or len(value) > 4096:
        raise BadReport(f"{key}: expected an object of lists")
    found = {}
    for name, texts in value.items():
        if not isinstance(texts, list | None) or not all(isinstance(text, str) for text in texts or ()):
            raise BadReport(f"{key}.{name}: expected a list of text")
        found[str(name)] = tuple(texts or ())
    return found
