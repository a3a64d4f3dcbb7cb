"""The driver: kills, cuts and heals by plan while rounds run, and says at the end whether everything added up."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiokafka.client import AIOKafkaClient

from kpatrol.lab import environments
from kpatrol.lab.faults import parse_fault
from kpatrol.lab.inject import Injection
from kpatrol.lab.netns import run_in
from kpatrol.lab.stack import AFTER, Stack
from kpatrol.lab.supervisor import Service
from kpatrol.lab.web import free_port
from kpatrol.reading.document import round_json
from kpatrol.recomputing import everything
from kpatrol.recomputing import run as recompute
from streams.delivery.webhook import KEY
from streams.recompute import Recomputed
from tests.integration.chaos_plan import Step
from tests.integration.driven import Run, until
from tests.integration.labs import assert_adds_up
from topics import alarms, round_verdicts
from topics.alarms import AlarmRecord
from topics.round_verdicts import RoundVerdict

_CUT = """
table inet kpatrol_chaos {
  chain arriving { type filter hook prerouting priority -350; policy accept; iifname "ctl" drop; }
}
"""
_HEAL = "add table inet kpatrol_chaos\ndelete table inet kpatrol_chaos\n"
HOOKS = "hooks:\n  - name: chaos\n    webhook: {{url: 'http://127.0.0.1:{port}/'}}\n"
IN_SYNC_S = 90.0


@dataclass
class Webhook:
    """The receiver: every call's key and body."""

    calls: list[tuple[str, bytes]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.calls.append((request.headers[KEY], await request.read()))
        return web.Response()

    def bodies(self) -> dict[str, set[bytes]]:
        """Different bodies by key: one each is right."""
        found: dict[str, set[bytes]] = {}
        for key, body in self.calls:
            found.setdefault(key, set()).add(body)
        return found


@asynccontextmanager
async def webhook() -> AsyncIterator[tuple[Webhook, int]]:
    receiver = Webhook()
    application = web.Application()
    application.router.add_post("/", receiver.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield receiver, int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@dataclass(kw_only=True)
class Outcome:
    """What came of a run."""

    verdicts: list[RoundVerdict]
    recomputed: list[Recomputed]
    transitions: list[AlarmRecord]
    calls: int
    kills: int = 0
    cuts: int = 0
    outage_s: float = 0.0

    def words(self) -> str:
        """One line of figures."""
        total = {
            name: sum(getattr(v, name) for v in self.verdicts)
            for name in ("planned", "stored", "unsent", "declared_missing", "unexplained", "duplicates")
        }
        equal = sum(not r.differs for r in self.recomputed)
        receipts = Counter(r.receipts for r in self.recomputed)
        said = Counter(v.verdict for v in self.verdicts)
        return (
            f"{self.kills} kills, {self.cuts} cuts, ClickHouse away for {self.outage_s:.0f} s; "
            f"{len(self.verdicts)} rounds final {dict(said)}; {', '.join(f'{n} {k}' for k, n in total.items())}; "
            f"{equal} of {len(self.recomputed)} verdicts equal when recomputed (receipts: {dict(receipts)}); "
            f"{len(self.transitions)} alarm transitions, {self.calls} calls of the webhook"
        )


class Chaos:
    """One run. `say` is told each step as it is done."""

    def __init__(self, run: Run, *, folder: Path, say: Callable[[str], None] = print) -> None:
        self._run, self._stack, self._folder, self._say = run, run.stack, folder, say
        self._reviving: asyncio.Task[None] | None = None
        self._healing: list[asyncio.Task[None]] = []
        self._away: dict[str, asyncio.Task[None]] = {}
        self.killed: set[str] = set()
        self.kills = self.cuts = 0
        self.outage_s = 0.0

    def start_hooks(self, port: int) -> None:
        """The alert hooks, which a lab has none of."""
        assert self._stack.kafka is not None
        file = self._folder / "hooks.yaml"
        file.write_text(HOOKS.format(port=port))
        environment = environments.streams(
            kafka=environments.KafkaDoor(variables=self._stack.kafka.environment("alarms")),
            clickhouse=self._stack.clickhouse(),
            health=f"127.0.0.1:{free_port()}",
        )
        environment |= {"KPATROL_HOOKS_FILE": str(file), "KPATROL_HOOKS_PATIENCE_S": "3600"}
        service = Service(name="hooks", module="streams", arguments=("hooks",), environment=environment, prefix=AFTER)
        self._stack.supervisor.start(service)

    async def follow(self, steps: Sequence[Step]) -> None:
        """Do all steps in their time, the first of them now; ends when all is healed."""
        began = time.monotonic() - (steps[0].at_s if steps else 0.0)
        for step in steps:
            await asyncio.sleep(max(0.0, began + step.at_s - time.monotonic()))
            self._say(f"at {time.monotonic() - began:6.1f} s; planned {step.words()}")
            await self._do(step)
        if self._reviving is not None:
            await self._reviving
        await asyncio.gather(*self._healing)

    async def _do(self, step: Step) -> None:
        if step.action == "take away":
            await self._take_away(step)
        elif step.action != "kill":
            self.cuts += 1
            heal = self._cut(step)
            self._healing.append(asyncio.create_task(_after(step.for_s, heal)))
        elif step.name.startswith("broker-"):
            await self._kill_broker(int(step.name.removeprefix("broker-")), away_s=step.for_s)
        else:
            if step.name in self._away:
                await self._away[step.name]
            services = self._stack.supervisor
            await until(lambda: services.is_running(step.name), timeout_s=30, what=f"{step.name} runs")
            self.kills += 1
            self.killed.add(step.name)
            await services.kill(step.name)

    async def _take_away(self, step: Step) -> None:
        """kill -9, and nobody starts it again until the time is over."""
        await self._stack.supervisor.hold(step.name)
        since = time.monotonic()

        async def give_back() -> None:
            self._stack.supervisor.release(step.name)
            self.outage_s += time.monotonic() - since
            self._say(f"{step.name} is back after {self.outage_s:.0f} s")

        self._away[step.name] = asyncio.create_task(_after(step.for_s, give_back))
        self._healing.append(self._away[step.name])

    async def _kill_broker(self, node_id: int, *, away_s: float) -> None:
        """One at a time: two of three away is a Kafka that takes nothing, which is another scene."""
        kafka = self._stack.kafka
        assert kafka is not None
        if self._reviving is not None:
            await self._reviving
        await self._in_sync()
        self.kills += 1
        await kafka.kill(node_id)

        async def revive() -> None:
            await kafka.revive(node_id)

        self._reviving = asyncio.create_task(_after(away_s, revive))

    async def _in_sync(self) -> None:
        client = AIOKafkaClient(**self._stack.kafka_door().client_options())
        await client.bootstrap()
        end = time.monotonic() + IN_SYNC_S
        try:
            while True:
                metadata = await client.fetch_all_metadata()
                lag = [
                    p for parts in metadata._partitions.values() for p in parts.values() if len(p.isr) < len(p.replicas)
                ]
                if not lag:
                    return
                assert time.monotonic() < end, f"not in sync within {IN_SYNC_S} s: {lag[:3]}"
                await asyncio.sleep(0.5)
        finally:
            await client.close()

    def _cut(self, step: Step) -> Callable[[], Awaitable[None]]:
        network = self._stack.network
        assert network is not None
        if step.action == "cut data":
            names = [n for n in network.nodes if n.startswith("node-")]
            faults = [parse_fault(f"{way} {step.name} loss=100%", nodes=names) for way in ("ingress", "egress")]
            injection = Injection(network, faults)
            for number in (0, 1):
                injection.begin(number)

            async def heal() -> None:
                for number in (0, 1):
                    await asyncio.to_thread(injection.end, number)

            return heal
        node = network.nodes[step.name]
        run_in(node, ["nft", "-f", "-"], stdin=_CUT)

        async def join() -> None:
            await asyncio.to_thread(run_in, node, ["nft", "-f", "-"], stdin=_HEAL)

        return join

    async def outcome(self, *, rounds: int, receiver: Webhook, timeout_s: float) -> Outcome:
        """Wait until every round is final and every transition delivered; then check everything that must hold."""
        final = await self._run.all_final(rounds, timeout_s=timeout_s)
        kafka = self._stack.kafka_door()
        transitions = await _delivered(self._stack, receiver, timeout_s=timeout_s)
        told = await everything(round_verdicts.TOPIC, kafka)
        door = self._stack.clickhouse()
        environment = {"KPATROL_CLICKHOUSE_PASSWORD_FILE": str(door.writer_file)}
        again = await recompute(kafka=kafka, url=door.url("writer"), env=environment)
        outcome = Outcome(
            verdicts=final,
            recomputed=again,
            transitions=transitions,
            calls=len(receiver.calls),
            kills=self.kills,
            cuts=self.cuts,
            outage_s=self.outage_s,
        )
        self._say(outcome.words())
        self._check(outcome, told, receiver)
        return outcome

    def _check(self, outcome: Outcome, told: Sequence[RoundVerdict], receiver: Webhook) -> None:
        assert_adds_up([round_json(v) for v in outcome.verdicts])
        for verdict in outcome.verdicts:
            assert stored_by_sql(self._run, verdict.round_id) == (verdict.stored, verdict.stored)
        assert [r.row() for r in outcome.recomputed if r.differs] == []
        assert len(outcome.recomputed) == len(outcome.verdicts)
        for account in (a for v in outcome.verdicts for a in v.accounts if a.declared_missing):
            assert f"agent-{account.agent}" in self.killed, account
            assert "died" in account.cause, account
        sums: dict[tuple[int, int], set[Any]] = {}
        for v in told:
            sums.setdefault((v.round_id, v.revision), set()).add((v.final, v.stored, v.unsent, v.declared_missing))
        assert [key for key, different in sums.items() if len(different) > 1] == [], "one revision, one statement"
        assert [key for key, bodies in receiver.bodies().items() if len(bodies) > 1] == [], "one key, one body"


async def _delivered(stack: Stack, receiver: Webhook, *, timeout_s: float) -> list[AlarmRecord]:
    """All transitions of the topic, once the webhook has had each of them that is not silenced."""
    end = time.monotonic() + timeout_s
    while True:
        records = await everything(alarms.TOPIC, stack.kafka_door())
        wanted = {f"{r.alarm_id}:{r.transition}" for r in records if not r.silenced}
        missing = wanted - receiver.bodies().keys()
        if not missing:
            assert receiver.bodies().keys() <= wanted
            return records
        assert time.monotonic() < end, f"not at the webhook: {sorted(missing)}"
        await asyncio.sleep(1)


def stored_by_sql(run: Run, round_id: int) -> tuple[int, int]:
    """(rows, distinct requests) of a round, straight from the engine."""
    sql = "SELECT count(), uniqExact(agent, incarnation, seq) FROM v_probe WHERE round_id = {id:UInt64}"
    rows, distinct = run.stack.store().rows(sql, {"id": round_id})[0]
    return int(rows), int(distinct)


async def _after(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await act()


def tell(text: str) -> None:
    """At once, past pytest's buffers when it is run with -s."""
    print(text, file=sys.stderr, flush=True)
