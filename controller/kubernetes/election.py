"""Who of several controllers acts: a Lease, held by one, taken over when its holder has not renewed it. Pure decisions.

As with all leases of Kubernetes, a holder's own clock is not believed: what counts is when *we* saw the lease change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

DURATION_S = 15
# A holder that could not renew for this long gives up before anybody else may take over.
RENEW_DEADLINE_S = 10.0
RETRY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A lease as it was read: its version, its holder, and when (monotonic seconds) this version was first seen."""

    version: str
    holder: str
    at_s: float
    duration_s: float = DURATION_S


def seen(lease: Mapping[str, Any], *, before: Seen | None, now_s: float) -> Seen:
    """The lease read just now."""
    version = str(lease["metadata"]["resourceVersion"])
    spec = lease.get("spec") or {}
    return Seen(
        version=version,
        holder=str(spec.get("holderIdentity") or ""),
        at_s=before.at_s if before is not None and before.version == version else now_s,
        duration_s=float(spec.get("leaseDurationSeconds") or DURATION_S),
    )


def may_take(lease: Seen, *, me: str, now_s: float) -> bool:
    """Whether it is ours, nobody's, or not renewed for its whole duration."""
    return lease.holder in ("", me) or now_s - lease.at_s > lease.duration_s


def held(spec: Mapping[str, Any], *, me: str, now_us: int) -> dict[str, Any]:
    """The spec of a lease in our hands, from what it was before."""
    at = datetime.fromtimestamp(now_us / 1e6, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    ours = spec.get("holderIdentity") == me
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": DURATION_S,
        "acquireTime": spec.get("acquireTime") if ours else at,
        "renewTime": at,
        "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if ours else 1),
    }
