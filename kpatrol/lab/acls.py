"""What each role may do in Kafka: derived from the topics' own lists of writers and readers, so it cannot drift.

`grants` is pure; `create_acls` is the effect: one request for all of them, no JVM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest_v1
from aiokafka.protocol.api import Request

from kpatrol.lab.errors import LabError
from topics.catalogue import TOPICS
from topics.connection import KafkaConnection

Role = Literal["controller", "agent", "sink", "judge", "alarms", "hooks", "traces", "reader", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
# Broker setting `super.users`: applies topics and ACLs, nothing else runs as it.
ADMIN: Role = "admin"

Resource = Literal["topic", "group", "cluster"]
Operation = Literal["read", "write", "describe", "idempotent_write"]

# Numbers of the protocol (ResourceType, PatternType, AclOperation, AclPermissionType).
_RESOURCES: Mapping[Resource, int] = {"topic": 2, "group": 3, "cluster": 4}
_OPERATIONS: Mapping[Operation, int] = {"read": 3, "write": 4, "describe": 8, "idempotent_write": 12}
_LITERAL, _PREFIXED, _ALLOW = 3, 4, 3

_GROUP_ROLES: tuple[Role, ...] = ("sink", "judge", "alarms", "hooks", "traces")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Grant:
    """One permission. With `prefixed`, `name` is the beginning of the names meant. Read and write include describe."""

    resource: Resource
    name: str
    operation: Operation
    prefixed: bool = False


def grants(role: Role) -> list[Grant]:
    """All permissions of a role, sorted; none for the admin, which is a super user."""
    if role == ADMIN:
        return []
    found = {*_topic_grants(role), *_group_grants(role), *_EXTRA.get(role, ())}
    if any(grant.operation == "write" for grant in found):
        found.add(Grant(resource="cluster", name="kafka-cluster", operation="idempotent_write"))
    return sorted(found)


def _topic_grants(role: Role) -> Iterable[Grant]:
    for topic in TOPICS.values():
        reads = role == "reader" or role in topic.readers
        if role in topic.writers:
            yield Grant(resource="topic", name=topic.name, operation="write")
        if reads:
            yield Grant(resource="topic", name=topic.name, operation="read")
        # Whoever meets an undecodable record sets it aside; a person looking on does not.
        if reads and topic.dead_letters:
            operation: Operation = "read" if role == "reader" else "write"
            yield Grant(resource="topic", name=topic.dlq, operation=operation)


def _group_grants(role: Role) -> Iterable[Grant]:
    """A Faust app owns the group of its id and the topics whose names begin with it (its tables' changelogs)."""
    if role not in _GROUP_ROLES:
        return
    app = f"kpatrol-{role}"
    yield Grant(resource="group", name=app, operation="read")
    yield Grant(resource="topic", name=f"{app}-", operation="read", prefixed=True)
    yield Grant(resource="topic", name=f"{app}-", operation="write", prefixed=True)


_EXTRA: Mapping[Role, tuple[Grant, ...]] = {
    # A verdict becomes final when the sink's position in the results shows that nothing more can come.
    "judge": (
        Grant(resource="group", name="kpatrol-sink", operation="describe"),
        Grant(resource="topic", name="probe-results-v1", operation="describe"),
    ),
    # Progress and lag are shown to people.
    "reader": (Grant(resource="group", name="kpatrol-", operation="describe", prefixed=True),),
}


ACLS: Mapping[Role, tuple[Grant, ...]] = {role: tuple(grants(role)) for role in ROLES}


class _CreateAcls(Request[CreateAclsRequest_v1]):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's own builder carries one entry; the wire takes any number."""

    API_KEY = 30

    def __init__(self, entries: list[tuple[Any, ...]]) -> None:
        self._entries = entries

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        return request_struct_class(self._entries)


def wire_entries(acls: Mapping[Role, Iterable[Grant]]) -> list[tuple[int, str, int, str, str, int, int]]:
    """What CreateAcls carries: type, name, pattern, principal, host, operation, permission."""
    return [
        (
            _RESOURCES[grant.resource],
            grant.name,
            _PREFIXED if grant.prefixed else _LITERAL,
            f"User:{role}",
            "*",
            _OPERATIONS[grant.operation],
            _ALLOW,
        )
        for role, granted in acls.items()
        for grant in granted
    ]


async def create_acls(connection: KafkaConnection, acls: Mapping[Role, Iterable[Grant]] = ACLS) -> int:
    """Create all of them as the admin of `connection`; returns how many. Those that exist already do no harm."""
    entries = wire_entries(acls)
    admin = AIOKafkaAdminClient(**connection.client_options())
    await admin.start()
    try:
        response: Any = await admin._send_to_controller(_CreateAcls(entries))
    finally:
        await admin.close()
    for entry, (code, message) in zip(entries, response.creation_responses, strict=True):
        if code:
            raise LabError(f"Kafka refused the ACL {entry}: {message or for_code(code).__name__}")
    return len(entries)
