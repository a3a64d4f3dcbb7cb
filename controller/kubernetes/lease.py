"""The Lease in the API server: asked for, renewed, given back."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from controller.kubernetes import election
from controller.kubernetes.door import Door
from controller.kubernetes.errors import LostLeadership, Unreachable

log = logging.getLogger(__name__)


class Leadership:
    """Ours or not. Run :meth:`keep` beside what asks :attr:`leading`."""

    def __init__(self, door: Door, *, namespace: str, name: str, me: str) -> None:
        self._door = door
        self._folder = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._me = me
        self._seen: election.Seen | None = None
        self._renewed_s: float | None = None
        self._silent_since_s = 0.0

    @property
    def leading(self) -> bool:
        """True while nobody else may act."""
        return self._renewed_s is not None and time.monotonic() - self._renewed_s < election.RENEW_DEADLINE_S

    @property
    def silent_since_s(self) -> float:
        """When the holder before us was last known to hold it (monotonic seconds)."""
        return self._silent_since_s

    async def keep(self) -> None:
        """Asks and renews until cancelled, then gives the lease back. Raises LostLeadership."""
        try:
            while True:
                await self._round()
                await asyncio.sleep(election.RETRY_S)
        finally:
            if self.leading:
                await asyncio.shield(asyncio.to_thread(self._give_back))

    async def _round(self) -> None:
        led = self._renewed_s is not None
        began_s = time.monotonic()
        try:
            ours = await asyncio.to_thread(self._ask)
        except Unreachable as error:
            log.warning("lease %s: %s", self._name, error)
            ours = False
        if ours:
            if not led:
                # Its last change was seen up to one look after it was made.
                self._silent_since_s = self._seen.at_s - election.RETRY_S if self._seen is not None else began_s
                log.info("lease %s: held by %s", self._name, self._me)
            self._renewed_s = began_s
        if led and not self.leading:
            raise LostLeadership(f"lease {self._name} was not renewed in time, or is another's")

    def _ask(self) -> bool:
        lease = self._read()
        now_s = time.monotonic()
        self._seen = election.seen(lease, before=self._seen, now_s=now_s)
        if not election.may_take(self._seen, me=self._me, now_s=now_s):
            return False
        spec = election.held(lease.get("spec") or {}, me=self._me, now_us=time.time_ns() // 1000)
        try:
            # The version read goes along: of two who try, one is refused.
            self._door.request("PUT", f"{self._folder}/{self._name}", body={**lease, "spec": spec})
        except Unreachable as error:
            if error.status == 409:
                return False
            raise
        return True

    def _read(self) -> dict[str, Any]:
        try:
            return self._door.request("GET", f"{self._folder}/{self._name}")
        except Unreachable as error:
            if error.status != 404:
                raise
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {"leaseDurationSeconds": election.DURATION_S},
        }
        return self._door.request("POST", self._folder, body=body)

    def _give_back(self) -> None:
        try:
            lease = self._door.request("GET", f"{self._folder}/{self._name}")
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") == self._me:
                body = {**lease, "spec": {**spec, "holderIdentity": ""}}
                self._door.request("PUT", f"{self._folder}/{self._name}", body=body)
                log.info("lease %s: given back", self._name)
        except Unreachable as error:
            log.warning("lease %s: not given back: %s", self._name, error)
