"""Kubernetes' word on who may read reports: SubjectAccessReview, and the aggregation layer's rules. In threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from controller.report_api.front_proxy import Caller, FrontProxy, front_proxy
from controller.report_api.material import GROUP, VERSION
from controller.report_api.refusals import RESOURCE

log = logging.getLogger(__name__)

# As long as kube-apiserver's own delegated authorisation remembers an answer.
REMEMBER_S = 10.0
REMEMBERED_MOST = 4096
_NAMESPACE, _CONFIG_MAP = "kube-system", "extension-apiserver-authentication"
_PATIENCE_S = 10


class CannotAsk(Exception):
    """Kubernetes did not answer."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether, and where it is said why."""

    allowed: bool
    why: str = ""


class Access(Protocol):
    """Who may."""

    async def rules(self) -> FrontProxy:
        """Whom to believe. Raises CannotAsk, NoFrontProxy."""
        ...

    async def may(self, caller: Caller, *, verb: str, namespace: str, name: str) -> Decision:
        """Whether the caller may read reports. Raises CannotAsk."""
        ...


class KubernetesAccess:
    """:class:`Access` by the API server that ``api_client`` (kubernetes.client.ApiClient) speaks to."""

    def __init__(self, api_client: Any) -> None:
        from kubernetes import client

        self._core = client.CoreV1Api(api_client)
        self._authorization = client.AuthorizationV1Api(api_client)
        self._client = client

    async def rules(self) -> FrontProxy:
        """Reads the ConfigMap."""
        found = await self._ask(
            lambda: self._core.read_namespaced_config_map(_CONFIG_MAP, _NAMESPACE, _request_timeout=_PATIENCE_S)
        )
        return front_proxy(found.data or {})

    async def may(self, caller: Caller, *, verb: str, namespace: str, name: str) -> Decision:
        """Creates a SubjectAccessReview."""
        attributes = self._client.V1ResourceAttributes(
            verb=verb, group=GROUP, version=VERSION, resource=RESOURCE, namespace=namespace or None, name=name or None
        )
        review = self._client.V1SubjectAccessReview(
            spec=self._client.V1SubjectAccessReviewSpec(
                user=caller.user,
                uid=caller.uid or None,
                groups=list(caller.groups) or None,
                extra={key: list(values) for key, values in caller.extra.items()} or None,
                resource_attributes=attributes,
            )
        )
        answer = await self._ask(
            lambda: self._authorization.create_subject_access_review(review, _request_timeout=_PATIENCE_S)
        )
        return Decision(bool(answer.status.allowed), str(answer.status.reason or ""))

    async def _ask(self, call: Callable[[], Any]) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return await asyncio.to_thread(call)
        except ApiException as error:
            raise CannotAsk(f"the API server says {error.status} {error.reason}") from error
        except (HTTPError, OSError) as error:
            raise CannotAsk(f"the API server cannot be reached: {type(error).__name__}") from error


@dataclass(slots=True)
class Remembered:
    """Asks at most once in ten seconds for one and the same question."""

    access: Access
    clock_s: Callable[[], float] = time.monotonic
    _known: dict[tuple[Any, ...], tuple[float, Decision]] = field(default_factory=dict)

    async def rules(self) -> FrontProxy:
        """Not remembered: the server reads them once a minute anyhow."""
        return await self.access.rules()

    async def may(self, caller: Caller, *, verb: str, namespace: str, name: str) -> Decision:
        """The decision, remembered or asked for."""
        key = (caller.key(), verb, namespace, name)
        known = self._known.get(key)
        if known is not None and self.clock_s() - known[0] < REMEMBER_S:
            return known[1]
        decision = await self.access.may(caller, verb=verb, namespace=namespace, name=name)
        if len(self._known) >= REMEMBERED_MOST:
            self._known.clear()
        self._known[key] = (self.clock_s(), decision)
        return decision
