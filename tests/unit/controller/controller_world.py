"""Small worlds for the tests: reports, tasks, and a controller whose Kafka is a pair of lists."""

from dataclasses import dataclass, field, replace
from typing import Any

from msgspec.structs import replace as with_fields

from controller import plan as plans
from controller.addressbook import AddressBook
from controller.observed import Observed
from controller.plan import Action, Settings, plan
from controller.source_files import with_uid
from controller.status import memory_from
from controller.tasks import Task, load_tasks, task_key
from topics import mesh_members
from topics.agent_reports import AgentReport
from topics.round_verdicts import EXAMPLE, RoundVerdict
from topics.task_rounds import RoundCancelled, RoundScheduled

S = 1_000_000
START = 1_790_000_000 * S


def report(agent: str, *, at_us: int = START, **fields: Any) -> AgentReport:
    number = int("".join(filter(str.isdigit, agent)) or 1)
    given: dict[str, Any] = {
        "agent": agent,
        "node": agent,
        "incarnation": 1,
        "at_us": at_us,
        "started_us": at_us,
        "interval_s": 5.0,
        "version": "0",
        "ipv4": f"10.0.0.{number}",
        "node_ipv4": f"192.0.2.{number}",
    }
    return AgentReport(**(given | fields))


def tasks(text: str) -> dict[str, Task]:
    return {task_key(task): with_uid(task) for task in load_tasks(text)}


def net_reach(
    *, name: str = "reach", schedule: str = '"0 1"', rounds: int = 3, target: str = "{endpoint: true}"
) -> str:
    return (
        f"apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {{name: {name}}}\nspec:\n"
        f"  schedule: {{schedule: {schedule}, roundNumber: {rounds}}}\n"
        f"  request: {{qps: 10, durationInSecond: 5}}\n  target: {target}\n"
    )


ENDPOINT_ONLY = "{clusterIP: false, nodePort: false}"


@dataclass
class World:
    """Runs plan() on a clock of its own and feeds what it publishes back, as the topics would."""

    desired: dict[str, Task]
    settings: Settings = field(default_factory=lambda: Settings(expected_agents=3, book=AddressBook()))
    agents: tuple[str, ...] = ("node-1", "node-2", "node-3")
    now_us: int = START
    observed: Observed = field(default_factory=Observed)
    rounds: list[RoundScheduled | RoundCancelled] = field(default_factory=list)
    progress: list[Any] = field(default_factory=list)
    members: list[mesh_members.MembersChunk] = field(default_factory=list)
    verdicts: list[RoundVerdict] = field(default_factory=list)
    judge_after_us: int | None = 6 * S
    udp_port: int = 0
    statuses: dict[str, Any] = field(default_factory=dict)

    def run(self, seconds: float, *, step_us: int = S // 5) -> None:
        """Lets time pass."""
        until_us = self.now_us + round(seconds * S)
        while self.now_us < until_us:
            self.step()
            self.now_us += step_us

    def step(self) -> list[Action]:
        """One comparison, carried out at once."""
        for agent in self.agents:
            known = self.observed.roster.agents.get(agent)
            if known is None or self.now_us - known.at_us >= S:
                told = report(agent, at_us=self.now_us, udp_port=self.udp_port)
                self.observed.roster.hear(told, at_us=self.now_us)
        self._judge()
        actions = plan(desired=self.desired, observed=self.observed, now_us=self.now_us, settings=self.settings)
        for action in actions:
            self._perform(action)
        return actions

    def restart(self, *, forget_state: bool = False) -> None:
        """A new process: only the topics and the status files are left."""
        observed = Observed()
        if not forget_state:
            for key, document in self.statuses.items():
                observed.written[key] = document
                carried = memory_from(document)
                if carried:
                    observed.memory[carried[0]] = carried[1]
        for record in self.rounds:
            observed.saw_round(record)
        for chunk in self.members:
            observed.saw_members(chunk)
        for verdict in self.verdicts:
            observed.saw_verdict(verdict)
        observed.roster.resume(at_us=self.now_us)
        self.observed = observed

    def scheduled(self) -> list[RoundScheduled]:
        return [record for record in self.rounds if isinstance(record, RoundScheduled)]

    def status(self) -> dict[str, Any]:
        (document,) = self.statuses.values()
        return dict(document["status"])

    def _judge(self) -> None:
        told = {verdict.round_id for verdict in self.verdicts}
        for record in self.scheduled():
            late_us = self.judge_after_us
            if late_us is not None and record.round_id not in told and self.now_us >= record.start_us + late_us:
                self.verdicts.append(verdict_of(record, at_us=self.now_us))
                self.observed.saw_verdict(self.verdicts[-1])

    def _perform(self, action: Action) -> None:
        match action:
            case plans.WriteStatus(key, document):
                self.statuses[key] = document
                self.observed.written[key] = document
            case plans.RemoveStatus(key):
                del self.statuses[key], self.observed.written[key]
            case plans.BeginTask(uid, at_us):
                self.observed.began(uid, at_us=at_us)
            case plans.PublishMembers(epoch):
                for chunk in mesh_members.chunks(
                    group=epoch.group, epoch=epoch.number, at_us=epoch.at_us, members=epoch.members
                ):
                    self.members.append(chunk)
                    self.observed.saw_members(chunk)
            case plans.PublishRound(round=round_, skipped=skipped):
                if not round_.follows:
                    memory = self.observed.memory[round_.task_uid]
                    self.observed.memory[round_.task_uid] = replace(memory, skipped=memory.skipped + skipped)
                self.rounds.append(round_)
                self.observed.saw_round(round_)
            case plans.AnnounceRound(round=round_):
                self.progress.append(round_)
                self.observed.announced.add(round_.round_id)
            case plans.CancelRound(record):
                self.rounds.append(record)
                self.progress.append(record)
                self.observed.saw_round(record)
                self.observed.cancel_sent.add(record.round_id)
            case plans.DeclareGone(record):
                self.progress.append(record)
                self.observed.gone_sent.add((record.round_id, record.agent))


def verdict_of(round_: RoundScheduled, *, at_us: int, **fields: Any) -> RoundVerdict:
    given: dict[str, Any] = {
        "round_id": round_.round_id,
        "round": round_.number,
        "task": round_.task,
        "task_uid": round_.task_uid,
        "start_us": round_.start_us,
        "at_us": at_us,
        "succeeded_nodes": ("node-1", "node-2", "node-3"),
    }
    return with_fields(EXAMPLE, **(given | fields))
