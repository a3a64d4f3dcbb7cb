"""The door to a cluster: what a check makes, looks at, attaches to, and removes. Requests are counted by the caller's
API server; each look is one request for all pods.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
import kubernetes
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError
from yaml import YAMLError

from kpatrol.check.gather import Broken
from kpatrol.check.manifests import CONTAINER, LABEL
from topics.mesh_members import Member

ATTACH = ["python3", "-m", "producers.attached", "relay"]
_PATROLS = ("kpatrol.io", "v1beta1", "netpatrols")
CONTROLLER = "app.kubernetes.io/name=kpatrol-controller"
FIELD_MANAGER = "kpatrol-check"
_STDIN, _STDOUT, _STDERR, _ERROR = 0, 1, 2, 3
_REFUSED = 403
_NOT_FOUND = 404
_BUSY = frozenset({0, 429, 500, 502, 503, 504})
# To connect, and until an answer: what hangs must not make a check hang.
_LIMITS_S = (10.0, 30.0)
_LEAST_S = 0.1


class ClusterTrouble(Exception):
    """The cluster cannot be reached, or refuses: which, what, why. `passing`: it may be otherwise in a moment."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class Cluster:
    """One cluster by its kubeconfig. All methods but `attach` block."""

    def __init__(self, *, kubeconfig: str, context: str, name: str) -> None:
        self.name = name
        # When a check is to be over, by the monotonic clock: no request waits for longer.
        self.until_s: float | None = None
        self._where = kubeconfig or "the default kubeconfig"
        # Whoever asks again says so; the client by itself would wait four times for what hangs.
        settings = kubernetes.client.Configuration(retries=False)
        try:
            self._client = kubernetes.config.new_client_from_config(
                config_file=kubeconfig or None, context=context or None, client_configuration=settings
            )
        except (ConfigException, YAMLError, OSError, ValueError, KeyError, TypeError) as error:
            raise ClusterTrouble(f"{self._where}: {_first_line(error)}") from error
        self._api: Any = kubernetes.client.CoreV1Api(self._client)
        self._apps: Any = kubernetes.client.AppsV1Api(self._client)
        self._custom: Any = kubernetes.client.CustomObjectsApi(self._client)
        self._auth: Any = kubernetes.client.AuthorizationV1Api(self._client)

    @property
    def url(self) -> str:
        """The API server's address."""
        return str(self._client.configuration.host)

    @property
    def _limits_s(self) -> tuple[float, float]:
        if self.until_s is None:
            return _LIMITS_S
        left_s = max(_LEAST_S, self.until_s - time.monotonic())
        return min(_LIMITS_S[0], left_s), min(_LIMITS_S[1], left_s)

    def has_kpatrol(self) -> bool:
        """Whether NetPatrols are known here and a controller of them runs, as far as the user may see."""
        try:
            self._custom.get_api_resources("kpatrol.io", "v1beta1", _request_timeout=self._limits_s)
            found = self._apps.list_deployment_for_all_namespaces(
                label_selector=CONTROLLER, _request_timeout=self._limits_s
            ).items
        except ApiException as error:
            if error.status in (_NOT_FOUND, _REFUSED):
                return False
            raise self._trouble(error) from error
        except (HTTPError, OSError) as error:
            raise self._trouble(error) from error
        return any((deployment.status.ready_replicas or 0) > 0 for deployment in found)

    def create_task(self, manifest: dict[str, Any]) -> None:
        """Make a NetPatrol."""
        self._tried(self._custom.create_cluster_custom_object, *_PATROLS, manifest)

    def task(self, name: str) -> dict[str, Any]:
        """A NetPatrol as it is."""
        return dict(self._tried(self._custom.get_cluster_custom_object, *_PATROLS, name))

    def remove_tasks(self, run: str = "") -> None:
        """Remove the NetPatrol of a run, or all that checks have left."""
        selector = f"{LABEL}={run}" if run else LABEL
        self._tried(self._custom.delete_collection_cluster_custom_object, *_PATROLS, label_selector=selector)

    def close(self) -> None:
        """End its connections."""
        self._client.close()

    def missing_rights(self, namespace: str) -> list[str]:
        """What a check needs and the user may not, as `verb resource`."""
        needed = [
            ("list", "", "nodes", "", ""), ("get", "", "namespaces", "", namespace),
            ("create", "", "namespaces", "", ""), ("delete", "", "namespaces", "", ""),
            ("patch", "apps", "daemonsets", "", namespace), ("delete", "apps", "daemonsets", "", namespace),
            ("list", "", "pods", "", namespace), ("create", "", "pods", "exec", namespace),
        ]  # fmt: skip
        return self._missing(needed)

    def missing_task_rights(self) -> list[str]:
        """What a check by a task needs and the user may not."""
        group, _, resource = _PATROLS
        return self._missing([(verb, group, resource, "", "") for verb in ("create", "get", "deletecollection")])

    def _missing(self, needed: Sequence[tuple[str, str, str, str, str]]) -> list[str]:
        return [f"{verb} {resource}{'/' if sub else ''}{sub}" for verb, group, resource, sub, where in needed
                if not self._may(verb, group, resource, sub, where)]  # fmt: skip

    def _may(self, verb: str, group: str, resource: str, sub: str, namespace: str) -> bool:
        asked = {"verb": verb, "group": group, "resource": resource, "subresource": sub, "namespace": namespace}
        body = {"spec": {"resourceAttributes": asked}}
        return bool(self._tried(self._auth.create_self_subject_access_review, body).status.allowed)

    def namespace_is_ours(self, name: str) -> bool | None:
        """Whether the namespace was made by a check; None where there is none."""
        try:
            found = self._api.read_namespace(name, _request_timeout=self._limits_s)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return None
            raise self._trouble(error) from error
        except (HTTPError, OSError) as error:
            raise self._trouble(error) from error
        return LABEL in (found.metadata.labels or {})

    def create_namespace(self, manifest: dict[str, Any]) -> None:
        """Make it."""
        self._tried(self._api.create_namespace, manifest)

    def apply_daemonset(self, manifest: dict[str, Any]) -> None:
        """Make it, or bring the one that is there to this form."""
        self._tried(
            self._apps.patch_namespaced_daemon_set, manifest["metadata"]["name"], manifest["metadata"]["namespace"],
            manifest, field_manager=FIELD_MANAGER, force=True, _content_type="application/apply-patch+yaml",
        )  # fmt: skip

    def nodes(self) -> list[dict[str, Any]]:
        """All nodes, as plain objects."""
        return self._plain(self._tried(self._api.list_node))

    def pods(self, namespace: str, *, run: str, name: str) -> list[dict[str, Any]]:
        """The pods of one DaemonSet of this run, as plain objects."""
        selector = f"{LABEL}={run},app.kubernetes.io/name={name}"
        return self._plain(self._tried(self._api.list_namespaced_pod, namespace, label_selector=selector))

    def dns_server(self) -> str:
        """The address of the cluster's DNS Service; empty where there is none under its usual name."""
        try:
            service = self._api.read_namespaced_service("kube-dns", "kube-system", _request_timeout=self._limits_s)
        except ApiException as error:
            if error.status in (_NOT_FOUND, _REFUSED):
                return ""
            raise self._trouble(error) from error
        except (HTTPError, OSError) as error:
            raise self._trouble(error) from error
        return str(service.spec.cluster_ip or "")

    def remove(self, namespace: str, *, names: list[str]) -> None:
        """Remove what a check made: the namespace where it is a check's, else its DaemonSets alone."""
        ours = self.namespace_is_ours(namespace)
        if ours is None:
            return
        try:
            if ours:
                self._api.delete_namespace(namespace, _request_timeout=self._limits_s)
            for name in names if not ours else ():
                self._apps.delete_namespaced_daemon_set(name, namespace, _request_timeout=self._limits_s)
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise self._trouble(error) from error
        except (HTTPError, OSError) as error:
            raise self._trouble(error) from error

    def is_gone(self, namespace: str) -> bool:
        """Whether a removed namespace has ended."""
        return self.namespace_is_ours(namespace) is None

    @asynccontextmanager
    async def attach(self, member: Member, *, namespace: str) -> AsyncGenerator[ExecStream, None]:
        """A stream to an agent's relay by `exec`. Raises Broken."""
        configuration = self._client.configuration
        query = [("command", part) for part in ATTACH]
        query += [("container", CONTAINER), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        parts = urlsplit(configuration.host)
        path = f"{parts.path.rstrip('/')}/api/v1/namespaces/{namespace}/pods/{member.pod}/exec"
        scheme = "wss" if parts.scheme == "https" else "ws"
        url = urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))
        headers: dict[str, str] = {}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(
                    url, headers=headers, ssl=_tls(configuration) if scheme == "wss" else False,
                    protocols=["v4.channel.k8s.io"], max_msg_size=0, heartbeat=30.0, proxy=_proxy(configuration),
                    proxy_headers=configuration.proxy_headers,
                    server_hostname=configuration.tls_server_name or None,
                ) as socket,
            ):  # fmt: skip
                yield ExecStream(socket)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Broken(f"exec into {member.pod}: {_first_line(error)}") from error

    def _plain(self, found: Any) -> list[dict[str, Any]]:
        return list(self._client.sanitize_for_serialization(found)["items"])

    def _tried(self, call: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, _request_timeout=self._limits_s, **named)
        except (ApiException, HTTPError, OSError, ConfigException) as error:
            raise self._trouble(error) from error

    def _trouble(self, error: Exception) -> ClusterTrouble:
        where = f"{self._where} ({self._client.configuration.host})"
        if isinstance(error, ApiException):
            text = _message(error)
            if not error.status:
                # TLS: nothing was answered.
                *_, last = str(error.reason or "no answer").strip().splitlines()
                return ClusterTrouble(f"{where}: cannot be reached: {last}", passing=True)
            if "system:anonymous" in text:
                text += "; the kubeconfig's user has no credentials, or they could not be made"
            # An API server that starts refuses everybody until it knows the roles.
            passing = error.status in _BUSY or (error.status == _REFUSED and "not yet ready" in text)
            return ClusterTrouble(f"{where}: {error.status} {error.reason}: {text}", passing=passing)
        return ClusterTrouble(f"{where}: cannot be reached: {_first_line(error)}", passing=True)


class ExecStream:
    """Standard input and output of a command in a pod (channels of v4.channel.k8s.io), as lines."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def write(self, data: bytes) -> None:
        """To its standard input."""
        try:
            await self._socket.send_bytes(bytes([_STDIN]) + data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise Broken(_first_line(error)) from error

    async def lines(self) -> AsyncIterator[bytes]:
        """Of its standard output. Raises Broken with what it wrote to standard error where it ended by itself."""
        rest, complaint = b"", b""
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == _STDOUT:
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    yield line + b"\n"
            elif channel in (_STDERR, _ERROR):
                complaint += data
        raise Broken(complaint.decode(errors="replace").strip() or "the stream ended")


def _proxy(configuration: Any) -> str | None:
    """Streams take the way that requests take."""
    bypassed = should_bypass_proxies(configuration.host, configuration.no_proxy or "")
    return None if bypassed else configuration.proxy or None


def _tls(configuration: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or "").strip()[:200]


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "reason", "") or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
