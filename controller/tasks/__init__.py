"""Task models: the fields, defaults and rules of every kind, told once.

A kind is a frozen dataclass whose fields carry their schema (:mod:`controller.tasks.schema`); reading a file,
the answer of ``kpatrol validate`` and the custom resource definitions all come from that one description.
Nothing here knows the time, Kafka or Kubernetes.
"""

from controller.tasks.apphttphealthy import AppHttpHealthy, AppHttpHealthySpec, HttpTarget
from controller.tasks.load import KINDS, Task, load_paths, load_tasks, task_key
from controller.tasks.netdns import Netdns, NetdnsSpec
from controller.tasks.netpatrol import NetPatrol, NetPatrolSpec
from controller.tasks.netreach import NetReach, NetReachSpec, NetReachTarget
from controller.tasks.problems import Problem, TaskFileErrors
from controller.tasks.schema import Limits
from controller.tasks.shared import AgentSpec, Expect, Metadata, Request, Schedule

__all__ = [
    "KINDS",
    "AgentSpec",
    "AppHttpHealthy",
    "AppHttpHealthySpec",
    "Expect",
    "HttpTarget",
    "Limits",
    "Metadata",
    "NetPatrol",
    "NetPatrolSpec",
    "NetReach",
    "NetReachSpec",
    "NetReachTarget",
    "Netdns",
    "NetdnsSpec",
    "Problem",
    "Request",
    "Schedule",
    "Task",
    "TaskFileErrors",
    "load_paths",
    "load_tasks",
    "task_key",
]
