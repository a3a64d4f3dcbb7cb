"""The only door to the API server: requests and watches in plain JSON, on the official client's connection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from controller.kubernetes.errors import Unreachable

PATIENCE_S = 10.0
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
Object = Mapping[str, Any]


def connect() -> Door:
    """As the pod's account; outside of a cluster as KUBECONFIG says. Raises Unreachable."""
    try:
        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
        return Door(client.ApiClient())
    except (config.ConfigException, OSError) as error:
        raise Unreachable(f"no way to the API server: {error}") from error


class Door:
    """Blocking: callers use threads. Safe to be used by several."""

    def __init__(self, api: Any) -> None:
        self.api = api

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Object | None = None,
        content_type: str = "application/json",
        patience_s: float = PATIENCE_S,
    ) -> dict[str, Any]:
        """The answer's object. Raises Unreachable with the status and the API server's own words."""
        reply = self._send(method, path, query=query, body=body, content_type=content_type, timeout=patience_s)
        try:
            data = reply.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}") from error
        found: Any = json.loads(data) if data else {}
        if reply.status >= 400:
            said = found.get("message", "") if isinstance(found, dict) else ""
            raise Unreachable(f"{method} {path}: {reply.status} {said}", status=reply.status)
        return dict(found)

    def watch(self, path: str, *, query: Sequence[tuple[str, str]], silence_s: float) -> Iterator[dict[str, Any]]:
        """Events as they come, until the server ends the watch. Raises Unreachable."""
        whole = (*query, ("watch", "true"), ("allowWatchBookmarks", "true"))
        reply = self._send(
            "GET", path, query=whole, body=None, content_type="application/json", timeout=(PATIENCE_S, silence_s)
        )
        if reply.status >= 400:
            raise Unreachable(f"watch {path}: {reply.status}", status=reply.status)
        rest = b""
        try:
            for part in reply.stream(65536, decode_content=True):
                *lines, rest = (rest + part).split(b"\n")
                yield from (json.loads(line) for line in lines if line)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"watch {path}: {type(error).__name__}") from error
        finally:
            reply.close()

    def _send(self, method: str, path: str, *, query: Any, body: Any, content_type: str, timeout: Any) -> Any:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            sent = self.api.param_serialize(
                method=method,
                resource_path=path,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            return self.api.call_api(*sent, _request_timeout=timeout).response
        except ApiException as error:
            raise Unreachable(f"{method} {path}: {error.status} {error.reason}", status=error.status or 0) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}") from error
