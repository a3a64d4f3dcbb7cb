"""The running controller: folds what the topics say, plans, carries out. Decisions are elsewhere, effects are here."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, cast

from aiokafka.errors import KafkaError

from controller import plan as plans
from controller.health import Pulse
from controller.observed import Observed
from controller.place import Lead, StatusSink, TaskSource
from controller.plan import Action, Ground, Settings, plan
from controller.publish import Publisher
from controller.report_api.live import LiveTask
from controller.status import memory_from
from controller.tasks import Task, TaskFileErrors
from controller.tasks.schema import to_plain
from topics import agent_reports, cluster_events, mesh_members, round_progress, round_verdicts, task_rounds
from topics.connection import KafkaConnection
from topics.follow import Followed, follow
from topics.spec import Topic

log = logging.getLogger(__name__)

TICK_S = 0.2
RESCAN_S = 1.0
FOLLOW_PAUSE_S = 1.0
UNTOLD_MOST = 10_000
# Control records without a deadline of their own are tried this long before the next comparison takes over.
PATIENCE_US = 60_000_000


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class Told(Protocol):
    """Who is told what comes while the controller runs."""

    def heard(self, report: agent_reports.AgentReport, *, at_us: int) -> None:
        """An agent's report came."""
        ...

    def saw_verdict(self, verdict: round_verdicts.RoundVerdict, *, at_us: int) -> None:
        """A verdict came. Of several controllers the one that leads tells it."""
        ...


def live_task(key: str, task: Task, written: Mapping[str, Any]) -> LiveTask:
    """A task that exists, as reports name it; ``written`` is its status document, empty before there is one."""
    carried = memory_from(written) if written else None
    return LiveTask(
        task=key,
        kind=task.KIND,
        uid=task.metadata.uid,
        created_us=carried[1].first_seen_us if carried is not None else 0,
        spec=to_plain(task.spec),
        status=written.get("status", {}),
    )


class Controller:
    """One controller over a folder of tasks. :meth:`run` goes on until it is cancelled."""

    def __init__(
        self,
        *,
        kafka: KafkaConnection,
        source: TaskSource,
        state: StatusSink,
        settings: Settings,
        pulse: Pulse | None = None,
        told: Told | None = None,
        lead: Lead | None = None,
    ) -> None:
        self._kafka = kafka
        self._source = source
        self._state = state
        self._settings = settings
        self._pulse = pulse or Pulse()
        self._told = told
        self._lead = lead
        self._observed = Observed()
        self._desired: dict[str, Task] = {}
        self._fingerprint: object = None
        self._facts: dict[str, Any] = {}
        # Verdicts that came while another was leading, with when (monotonic seconds).
        self._untold: deque[tuple[float, round_verdicts.RoundVerdict]] = deque(maxlen=UNTOLD_MOST)

    @property
    def observed(self) -> Observed:
        """What the topics have told; read-only for everybody else."""
        return self._observed

    def live_tasks(self) -> list[LiveTask]:
        """The tasks that exist, with their statuses: one that waits for the lead reads what the leader wrote."""
        written = self._observed.written if self._may_act() else self._state.read()
        return [live_task(key, task, written.get(key, {})) for key, task in self._desired.items()]

    def load(self) -> None:
        """Reads tasks and the statuses of the last run. Raises TaskFileErrors: then nothing is scheduled."""
        self._fingerprint = self._source.fingerprint()
        try:
            self._desired = self._source.tasks()
        except TaskFileErrors as errors:
            self._state.write_problems(errors.problems)
            raise
        self._state.write_problems([])
        self._recall()

    def _recall(self) -> None:
        """Goes on from the statuses that were written last, by whomever."""
        for key, document in self._state.read().items():
            self._observed.written[key] = document
            carried = memory_from(document)
            if carried is not None:
                self._observed.remember(*carried)

    async def run(self) -> None:
        """Follows the topics and acts. Raises whatever a follower or the loop raises; stops all when cancelled."""
        observed = self._observed
        caught_up = [asyncio.Event() for _ in range(4)]
        async with Publisher(kafka=self._kafka) as publisher, asyncio.TaskGroup() as group:
            group.create_task(self._follow(task_rounds.TOPIC, self._saw_round, caught_up[0]))
            group.create_task(self._follow(mesh_members.TOPIC, self._saw_members, caught_up[1]))
            group.create_task(self._follow(agent_reports.TOPIC, self._heard, caught_up[2]))
            group.create_task(self._follow(round_verdicts.TOPIC, self._saw_verdict, caught_up[3]))
            for event in caught_up:
                await event.wait()
            observed.roster.resume(at_us=now_us())
            log.info("caught up: %d tasks, %d memberships", len(self._desired), len(observed.epochs))
            if self._lead is not None:
                group.create_task(self._lead.keep())
                await self._wait_for_the_lead(self._lead)
            await self._act(publisher)

    async def _wait_for_the_lead(self, lead: Lead) -> None:
        """Until this controller may act. What the last leader published by then is known at the end."""
        while not lead.leading:
            self._rescan()
            self._pulse.beat(**self._figures())
            await asyncio.sleep(TICK_S)
        for topic, take in ((mesh_members.TOPIC, self._saw_members), (task_rounds.TOPIC, self._saw_round)):
            await self._read_to_end(cast(Topic[Any], topic), cast(Callable[[Followed[Any]], None], take))
        self._recall()
        log.info("leading")
        self._tell_of_verdicts(since_s=lead.silent_since_s)

    async def _read_to_end(self, topic: Topic[Any], take: Callable[[Followed[Any]], None]) -> None:
        records = cast(
            AsyncGenerator[Followed[Any], None], follow(topic, kafka=self._kafka, client_id="kpatrol-controller")
        )
        try:
            async for followed in records:
                if followed.record is not None:
                    take(followed)
                if followed.caught_up:
                    return
        finally:
            await records.aclose()

    def _tell_of_verdicts(self, *, since_s: float) -> None:
        """Verdicts that came after the last leader's last sign of life. It may have told the first of them itself."""
        for came_s, verdict in self._untold:
            if came_s >= since_s and self._told is not None:
                self._told.saw_verdict(verdict, at_us=now_us())
        self._untold.clear()

    def _may_act(self) -> bool:
        return self._lead is None or self._lead.leading

    async def _act(self, publisher: Publisher) -> None:
        scanned_s = 0.0
        while True:
            if time.monotonic() - scanned_s >= RESCAN_S:
                scanned_s = time.monotonic()
                self._rescan()
                self._tell()
                await self._tell_of_the_cluster(publisher)
            self._pulse.beat(**self._figures())
            actions = plan(desired=self._desired, observed=self._observed, now_us=now_us(), settings=self._here())
            for action in actions:
                # Between two of them Kafka may have kept us waiting for longer than the lease lasts.
                if self._may_act():
                    await self._perform(action, publisher)
            await asyncio.sleep(TICK_S)

    def _here(self) -> Settings:
        book = self._source.book()
        return replace(
            self._settings, book=book or self._settings.book, sites=self._source.sites(), grounds=self._grounds()
        )

    def _grounds(self) -> Mapping[str, Ground]:
        """Agents of tasks' own, after whatever of them is missing was asked for."""
        finished = {
            str(document["metadata"].get("uid")): document["status"].get("finishTime", "")
            for document in self._observed.written.values()
        }
        return self._source.grounds(list(self._desired.values()), finished=finished)

    async def _tell_of_the_cluster(self, publisher: Publisher) -> None:
        for event in self._source.cluster_events(now_us()):
            self._observed.events.append(event)
            await publisher.send(cluster_events.TOPIC, event, until_us=now_us() + PATIENCE_US)

    def _figures(self) -> dict[str, float]:
        epoch = self._observed.newest_epoch
        return {
            "leading": float(self._may_act()),
            "tasks": len(self._desired),
            "agents_heard": len(self._observed.roster.alive(self._settings.group)),
            "members": len(epoch.members) if epoch else 0,
            "epoch": epoch.number if epoch else 0,
        }

    def _rescan(self) -> None:
        """Reads the folder again when it changed. A bad set is refused whole; the last good one goes on."""
        try:
            fingerprint = self._source.fingerprint()
            if fingerprint == self._fingerprint:
                return
            self._fingerprint = fingerprint
            self._desired = self._source.tasks()
        except TaskFileErrors as errors:
            log.error("task files refused, the last good ones go on:\n%s", errors)
            self._state.write_problems(errors.problems)
        except OSError as error:
            log.error("task folder cannot be read, the last good tasks go on: %s", error)
        else:
            log.info("task files read again: %d tasks", len(self._desired))
            self._state.write_problems([])

    def _tell(self) -> None:
        epoch = self._observed.newest_epoch
        facts = {
            "ready": True,
            "pid": os.getpid(),
            "tasks": len(self._desired),
            "agentsHeard": len(self._observed.roster.alive(self._settings.group)),
            "epoch": epoch.number if epoch else 0,
            "members": len(epoch.members) if epoch else 0,
        }
        if facts != self._facts:
            self._facts = facts
            self._state.write_controller(facts)

    async def _perform(self, action: Action, publisher: Publisher) -> None:
        match action:
            case plans.WriteStatus(key, document):
                before = self._observed.written.get(key)
                if before is not None and before["metadata"]["uid"] != document["metadata"]["uid"]:
                    await self._tell_ended(key, before, publisher)
                self._state.write(key, document)
                self._observed.written[key] = document
            case plans.RemoveStatus(key):
                await self._tell_ended(key, self._observed.written[key], publisher)
                self._state.remove(key)
                del self._observed.written[key]
            case plans.BeginTask(uid, at_us):
                self._observed.began(uid, at_us=at_us)
            case _:
                await self._publish(action, publisher)

    async def _tell_ended(self, key: str, document: Mapping[str, Any], publisher: Publisher) -> None:
        """Tell that a task is no more: its alarms are over."""
        event = cluster_events.ClusterEvent(
            object=f"task/{document['metadata']['uid']}",
            node="",
            reason=cluster_events.TASK_DELETED,
            message=f"{key} was deleted or replaced by a task of another content",
            at_us=now_us(),
        )
        await publisher.send(cluster_events.TOPIC, event, until_us=now_us() + PATIENCE_US)

    async def _publish(self, action: Action, publisher: Publisher) -> None:
        observed = self._observed
        patience_us = now_us() + PATIENCE_US
        match action:
            case plans.PublishMembers(epoch):
                observed.members_sent[epoch.group] = epoch.number
                records = mesh_members.chunks(
                    group=epoch.group, epoch=epoch.number, at_us=epoch.at_us, members=epoch.members
                )
                for record in records:
                    if not await publisher.send(mesh_members.TOPIC, record, until_us=patience_us):
                        observed.members_sent[epoch.group] = 0
                log.info("members: epoch %d, %d agents", epoch.number, len(epoch.members))
            case plans.PublishRound(round=round_, skipped=skipped):
                await self._publish_round(round_, skipped, publisher)
            case plans.AnnounceRound(round=round_):
                if await publisher.send(round_progress.TOPIC, round_, until_us=patience_us):
                    observed.announced.add(round_.round_id)
            case plans.CancelRound(record):
                observed.cancel_sent.add(record.round_id)
                for topic in (task_rounds.TOPIC, round_progress.TOPIC):
                    await publisher.send(cast(Topic[Any], topic), record, until_us=patience_us)
            case plans.DeclareGone(record):
                log.warning("agent %s is gone: %s", record.agent, record.cause)
                if await publisher.send(round_progress.TOPIC, record, until_us=patience_us):
                    observed.gone_sent.add((record.round_id, record.agent))

    async def _publish_round(self, round_: task_rounds.RoundScheduled, skipped: int, publisher: Publisher) -> None:
        observed, uid = self._observed, round_.task_uid
        if now_us() >= round_.start_us:
            # Kafka kept an earlier action of this comparison waiting: the next one finds a start that still lies ahead.
            return
        observed.publishing[uid] = round_.number
        if not await publisher.send(task_rounds.TOPIC, round_, until_us=round_.start_us):
            # It may stand in the topic all the same: then the follower shows it, and it counts.
            observed.publishing.pop(uid, None)
            return
        if uid in observed.memory:
            observed.memory[uid] = replace(observed.memory[uid], skipped=observed.memory[uid].skipped + skipped)
        log.info("%s: round %d published, %d requests planned", round_.task, round_.number, round_.planned)

    async def _follow(self, topic: Topic[Any], take: Callable[[Followed[Any]], None], caught_up: asyncio.Event) -> None:
        """Feeds a topic from its start into ``take``, and again from its start after a lost connection."""
        while True:
            records = cast(
                AsyncGenerator[Followed[Any], None],
                follow(topic, kafka=self._kafka, client_id="kpatrol-controller"),
            )
            try:
                async for followed in records:
                    if followed.record is not None:
                        take(followed)
                    if followed.caught_up:
                        caught_up.set()
            except (KafkaError, OSError) as error:
                log.warning("%s: reading failed, starting again: %s", topic.name, error or type(error).__name__)
            finally:
                await records.aclose()
            await asyncio.sleep(FOLLOW_PAUSE_S)

    def _saw_round(self, followed: Followed[task_rounds.TaskRound]) -> None:
        assert followed.record is not None
        self._observed.saw_round(followed.record)

    def _saw_members(self, followed: Followed[mesh_members.MembersChunk]) -> None:
        assert followed.record is not None
        self._observed.saw_members(followed.record)

    def _heard(self, followed: Followed[agent_reports.AgentReport]) -> None:
        assert followed.record is not None
        # A report from before this start is as old as its record; a live one is heard now, whatever its clock says.
        at_us = now_us() if followed.caught_up else min(now_us(), followed.timestamp_ms * 1000)
        self._observed.roster.hear(followed.record, at_us=at_us)
        if followed.caught_up and self._told is not None:
            self._told.heard(followed.record, at_us=at_us)

    def _saw_verdict(self, followed: Followed[round_verdicts.RoundVerdict]) -> None:
        assert followed.record is not None
        self._observed.saw_verdict(followed.record)
        if not followed.caught_up:
            return
        if not self._may_act():
            self._untold.append((time.monotonic(), followed.record))
        elif self._told is not None:
            self._told.saw_verdict(followed.record, at_us=now_us())
