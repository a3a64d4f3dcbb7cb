"""What the controller asks of the API server: the one table that its ClusterRole and Role are held against.

tests/cluster/test_targets.py compares it with the API server's own record of the calls made.
"""

from __future__ import annotations

from typing import NamedTuple


class Right(NamedTuple):
    """A verb on a resource of an API group ("" = core)."""

    group: str
    resource: str
    verb: str


_KEPT = (
    ("kdoctor.io", ("netreaches", "apphttphealthies", "netdnses")),
    ("kpatrol.io", ("netpatrols",)),
    ("", ("nodes", "services", "pods")),
    ("networking.k8s.io", ("ingresses",)),
    ("apps", ("daemonsets", "deployments")),
)
_WRITTEN = (
    ("kdoctor.io", ("netreaches/status", "apphttphealthies/status", "netdnses/status"), "patch"),
    ("kpatrol.io", ("netpatrols/status",), "patch"),
    ("", ("events",), "create"),
)
_LEASE = tuple(Right("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update"))
_DEFINITIONS = (
    Right("apiextensions.k8s.io", "customresourcedefinitions", "get"),
    Right("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "list"),
    Right("admissionregistration.k8s.io", "validatingwebhookconfigurations", "list"),
)
# An object that is applied and not there yet is created: both rights are asked, the record says "patch".
OWN_AGENTS = tuple(
    Right(group, name, verb)
    for group, name, verbs in (
        ("apps", "daemonsets", ("patch", "create", "delete")),
        ("apps", "deployments", ("patch", "create", "delete")),
        # These go with the workload's owner, by the cluster's garbage collector.
        ("", "services", ("patch", "create")),
        ("networking.k8s.io", "ingresses", ("patch", "create")),
    )
    for verb in verbs
)
RIGHTS = frozenset(
    {
        *(Right(group, name, verb) for group, names in _KEPT for name in names for verb in ("list", "watch")),
        *(Right(group, name, verb) for group, names, verb in _WRITTEN for name in names),
        *_LEASE,
        *_DEFINITIONS,
        *OWN_AGENTS,
    }
)
