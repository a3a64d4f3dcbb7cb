"""The figures of one agent's requests to one target, as both shapes of the report show them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from controller.report_api.store import TargetLine
from topics.round_verdicts import AgentAccount

Json = dict[str, Any]

# RFC 1035, RFC 2136: the codes that resolvers answer with.
_RCODES = (
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
)
_TYPES = {"AppHttpHealthy": "HttpAppHealthy", "Netdns": "kdoctor agent"}


def target_type(kind: str) -> str:
    """kdoctor's word for what a kind's targets are."""
    return _TYPES.get(kind, kind)


def resources(account: AgentAccount, *, span_us: int) -> dict[str, str]:
    """CPU of the agent itself (busiest second, mean) and its greatest resident memory.

    Where the share was too short for a whole second, the busiest one is the mean.
    """
    mean = cpu_percent(account.cpu_us, span_us)
    return {
        "maxCPU": cpu_percent(account.cpu_peak_us, 1e6) if account.cpu_peak_us else mean,
        "meanCPU": mean,
        "maxMemory": megabytes(account.resident_bytes),
    }


def url_of(line: TargetLine, kind: str, spec: Mapping[str, Any]) -> str:
    """The URL that was asked, as kdoctor writes it."""
    if kind == "AppHttpHealthy":
        host = str((spec.get("target") or {}).get("host", ""))
        return host if "http" in host else f"http://{host}"
    if line.layer == "ingress" and "://" in line.target:
        return line.target[line.target.index("http") :]
    scheme = line.protocol
    return f"{scheme}://{server_of(line)}"


def server_of(line: TargetLine) -> str:
    """``address:port``, an IPv6 address in brackets."""
    host = f"[{line.address}]" if ":" in line.address else line.address
    return f"{host}:{line.port}" if line.port else host


def latencies(line: TargetLine) -> Json:
    """Delays of successful requests in milliseconds, from the sent time; 0 where none succeeded."""
    quantiles = line.quantiles_us if line.ok else (0.0, 0.0, 0.0, 0.0)
    p50, p90, p95, p99 = (ms(value) for value in quantiles)
    return {
        **{"p50InMs": p50, "p90InMs": p90, "p95InMs": p95, "p99InMs": p99},
        **{"maxInMs": ms(line.max_us), "minInMs": ms(line.min_us), "meanInMs": ms(line.mean_us)},
    }


def succeed_rate(line: TargetLine) -> float:
    """Successes of the requests that were made; 0 where none was."""
    return line.ok / line.finished if line.finished else 0.0


def duration_us(line: TargetLine) -> int:
    """From the first request to the last reply."""
    return max(0, line.last_us - line.first_us) if line.finished else 0


def tps(line: TargetLine) -> float:
    """Requests a second over that time."""
    spent_us = duration_us(line)
    return line.finished / (spent_us / 1e6) if spent_us else 0.0


def status_codes(line: TargetLine) -> dict[str, int]:
    """HTTP status → count; what never got a status counts under "0"."""
    return {str(code): times for code, times in line.statuses.items()}


def reply_codes(line: TargetLine) -> dict[str, int]:
    """DNS reply code by name → count. Requests without a reply are in ``errors``."""
    lost = line.finished - line.ok
    codes = dict(line.statuses)
    # An answer's code 0 is NOERROR; a request without an answer has 0 as well.
    codes[0] = codes.get(0, 0) - lost
    return {_rcode(code): times for code, times in codes.items() if times > 0}


def _rcode(code: int) -> str:
    return _RCODES[code] if code < len(_RCODES) else f"RCODE{code}"


def dns_protocol(spec: Mapping[str, Any]) -> str:
    """udp, tcp or tcp-tls."""
    return str((spec.get("request") or {}).get("protocol", "udp"))


def dns_domain(spec: Mapping[str, Any]) -> str:
    """The name asked for, fully qualified."""
    domain = str((spec.get("request") or {}).get("domain", ""))
    return domain if domain.endswith(".") else f"{domain}."


def http_method(spec: Mapping[str, Any]) -> str:
    """The task's method, GET where it has none."""
    return str((spec.get("target") or {}).get("method", "GET"))


def ms(value_us: float | None) -> float:
    """Milliseconds to the nanosecond; 0 for nothing, which NaN is too."""
    return round(value_us / 1000, 6) if value_us is not None and not math.isnan(value_us) else 0.0


def cpu_percent(used_us: float, span_us: float) -> str:
    """CPU as kdoctor writes it: per cent of one core, three decimals."""
    return f"{100 * used_us / span_us if span_us > 0 else 0:.3f}%"


def megabytes(size_bytes: int) -> str:
    """Memory as kdoctor writes it."""
    return f"{size_bytes / (1 << 20):.2f}MB"
