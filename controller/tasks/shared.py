# ruff: noqa: RUF009 - the calls describe fields, as dataclasses.field does
"""The parts that several kinds have in common: metadata, schedule, request, expect, agentSpec.

Field names, types and ranges are those of kdoctor.io/v1beta1. Defaults differ from it where its own cannot work:
a per-request timeout of 5 ms becomes 500 ms, and ``roundTimeoutMinute`` follows the interval instead of being
refused by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from controller.tasks import scheduleform
from controller.tasks.hostnames import DNS1123_SUBDOMAIN, is_object_name
from controller.tasks.scheduleform import Cron, Simple
from controller.tasks.schema import (
    Opaque,
    Rule,
    Scalar,
    Syntax,
    boolean,
    integer,
    list_of,
    map_of_strings,
    nested,
    number,
    opaque,
    string,
)

ROUND_TIMEOUT_MINUTE = 60
YEAR_MINUTE = 525_600
REQUEST_ABSENT: Mapping[str, Any] = {"durationInSecond": 2, "qps": 10, "perRequestTimeoutInMS": 500}

_NAME = Syntax(
    allowed='up to 253 lower-case letters, digits, "-" and ".", beginning and ending with a letter or digit',
    holds=is_object_name,
    patterns=(DNS1123_SUBDOMAIN,),
)
_SCHEDULE = Syntax(
    allowed='"M N" in minutes (M from 0, N from 1), or five cron fields, separated by single spaces',
    holds=lambda text: scheduleform.parse(text) is not None,
    patterns=(scheduleform.PATTERN,),
    max_length=scheduleform.LENGTH_MAX,
    cel=scheduleform.CEL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What of the object's metadata a task needs; the rest of it is accepted and not read."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    name: str = string("name", "Name of the task.", required=True, syntax=_NAME)
    uid: str = string("uid", "Identity of this very object, given by the source of the task.", default="")
    labels: Mapping[str, str] = map_of_strings("labels", "Labels.")
    annotations: Mapping[str, str] = map_of_strings("annotations", "Annotations.")


def _timeout_fits_interval(schedule: Schedule) -> bool:
    form = schedule.form
    written = schedule.round_timeout_written_minute
    return written is None or not isinstance(form, Simple) or written <= form.interval_minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When rounds start, how many there are, and how long one may take."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="roundTimeoutMinute",
            cel="!has(self.roundTimeoutMinute) || !self.schedule.matches('^[0-9]+ [0-9]+$') || "
            "self.roundTimeoutMinute <= int(self.schedule.split(' ')[1])",
            holds=_timeout_fits_interval,
            found=lambda s: f'{s.round_timeout_written_minute} with schedule "{s.schedule}"',
            allowed="at most the interval, the second number of the schedule",
        ),
    )

    schedule: str = string("schedule", "Two numbers or five cron fields.", default="0 1", syntax=_SCHEDULE)
    round_timeout_written_minute: int | None = integer(
        "roundTimeoutMinute",
        "Minutes a round may take, from its start. Left out: 60, or the interval where that is shorter.",
        minimum=1,
        maximum=YEAR_MINUTE,
    )
    round_number: int = integer(
        "roundNumber", "How many rounds; -1 = for ever.", default=1, minimum=-1, maximum=10**9, excluded=(0,)
    )

    @property
    def form(self) -> Simple | Cron:
        """The schedule, read. The text was checked when the task was."""
        form = scheduleform.parse(self.schedule)
        if form is None:
            raise ValueError(f"not a schedule: {self.schedule!r}")
        return form

    @property
    def round_timeout_minute(self) -> int:
        """The timeout that holds: what was written, else 60, else the interval where that is shorter."""
        if self.round_timeout_written_minute is not None:
            return self.round_timeout_written_minute
        form = self.form
        return min(ROUND_TIMEOUT_MINUTE, form.interval_minute) if isinstance(form, Simple) else ROUND_TIMEOUT_MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The load of one agent on one target."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    duration_s: int = integer("durationInSecond", "Seconds of load.", default=2, minimum=1)
    qps: int = integer(
        "qps", "Requests a second, of each agent to each target.", default=5, minimum=1, ceiling="max_qps"
    )
    timeout_ms: int = integer(
        "perRequestTimeoutInMS", "Milliseconds after which a request is lost.", default=500, minimum=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What makes a round a success."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    success_rate: float = number("successRate", "Least share of good requests.", default=1.0, minimum=0, maximum=1)
    mean_delay_ms: int = integer("meanAccessDelayInMs", "Greatest mean delay in milliseconds.", default=5000, minimum=1)
    status_code: int | None = integer(
        "statusCode", "The HTTP status a good reply has. Left out: any.", minimum=100, maximum=599
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Requests and limits of the container."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    limits: Mapping[str, Any] | None = opaque("limits", "Most it may use.")
    requests: Mapping[str, Any] | None = opaque("requests", "What is set aside for it.")
    claims: tuple[Mapping[str, Any], ...] = list_of("claims", "Resource claims.", Opaque(keys=("name", "request")))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """Agents of the task's own. Its presence, even empty, asks for them."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="deploymentReplicas",
            cel="self.kind != 'Deployment' || (has(self.deploymentReplicas) && self.deploymentReplicas >= 1)",
            holds=lambda spec: spec.kind != "Deployment" or (spec.deployment_replicas or 0) >= 1,
            found=lambda spec: "nothing" if spec.deployment_replicas is None else str(spec.deployment_replicas),
            allowed="whole number from 1 when kind is Deployment",
        ),
    )

    kind: str = string("kind", "Workload.", default="DaemonSet", enum=("DaemonSet", "Deployment"))
    deployment_replicas: int | None = integer(
        "deploymentReplicas", "Agents of a Deployment.", minimum=0, maximum=2**31 - 1
    )
    annotation: Mapping[str, str] = map_of_strings("annotation", "Annotations of workload, pods and Services.")
    affinity: Mapping[str, Any] | None = opaque(
        "affinity", "Replaces the template's.", keys=("nodeAffinity", "podAffinity", "podAntiAffinity")
    )
    env: tuple[Mapping[str, Any], ...] = list_of(
        "env", "Added to every container.", Opaque(keys=("name", "value", "valueFrom"))
    )
    host_network: bool = boolean("hostNetwork", "Run in the node's network.", default=False)
    resources: Resources | None = nested("resources", "Replaces the template's.", Resources, absent=None)
    termination_grace_minute: int | None = integer(
        "terminationGracePeriodMinutes", "Minutes the agents stay after the last round.", minimum=0
    )


def round_budget_rules(*, request: str = "request") -> tuple[Rule, ...]:
    """Rules of a spec that has ``schedule`` and ``request``: neither the load nor one request outlasts a round."""
    timeout = (
        "(has(self.schedule.roundTimeoutMinute) ? self.schedule.roundTimeoutMinute : "
        "(self.schedule.schedule.matches('^[0-9]+ [0-9]+$') && int(self.schedule.schedule.split(' ')[1]) < 60 ? "
        "int(self.schedule.schedule.split(' ')[1]) : 60))"
    )
    return (
        Rule(
            field=f"{request}.durationInSecond",
            cel=f"self.{request}.durationInSecond <= {timeout} * 60",
            holds=lambda spec: spec.request.duration_s <= spec.schedule.round_timeout_minute * 60,
            found=lambda spec: f"{spec.request.duration_s} s in {_round(spec)}",
            allowed="at most the round timeout",
        ),
        Rule(
            field=f"{request}.perRequestTimeoutInMS",
            cel=f"self.{request}.perRequestTimeoutInMS <= {timeout} * 60000",
            holds=lambda spec: spec.request.timeout_ms <= spec.schedule.round_timeout_minute * 60_000,
            found=lambda spec: f"{spec.request.timeout_ms} ms in {_round(spec)}",
            allowed="at most the round timeout",
        ),
    )


def _round(spec: Any) -> str:
    minutes = spec.schedule.round_timeout_minute
    how = "written" if spec.schedule.round_timeout_written_minute is not None else "by default"
    return f"a round of {minutes} min ({how})"


TEXT = Scalar(type="string")
