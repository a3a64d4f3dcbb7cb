"""A lab with several sinks and judges, which join and leave while rounds run; and what must hold afterwards."""

import asyncio
import urllib.request
from collections import Counter
from pathlib import Path

from aiokafka.partitioner import DefaultPartitioner

from controller.source_files import load_paths, with_uid
from kpatrol.lab import environments
from kpatrol.lab.acls import Role
from kpatrol.lab.stack import AFTER
from kpatrol.lab.supervisor import Service
from kpatrol.lab.web import answers, free_port, wait_until
from kpatrol.reading.document import round_json
from tests.integration.chaos_driver import stored_by_sql
from tests.integration.driven import Run
from tests.integration.labs import assert_adds_up
from topics import round_progress

AGENTS, RATE, DURATION_S, MINUTE_S = 4, 10, 14, 16
# Judges share by task: one in each partition, so that each has some.
TASKS = round_progress.TOPIC.partitions
PLANNED = AGENTS * (AGENTS - 1) * RATE * DURATION_S
TASK = f"""
apiVersion: kdoctor.io/v1beta1
kind: NetReach
metadata: {{{{name: share-{{number}}}}}}
spec:
  schedule: {{{{schedule: "0 1", roundNumber: {{rounds}}}}}}
  request: {{{{durationInSecond: {DURATION_S}, qps: {RATE}, perRequestTimeoutInMS: 1000}}}}
  expect: {{{{successRate: 0.5, meanAccessDelayInMs: 5000}}}}
  target: {{{{endpoint: true, clusterIP: false, nodePort: false}}}}
"""
WORK: dict[str, str] = {"sink": "probe-results-v1", "judge": "round-progress-v1"}


def one_task_a_partition(folder: Path, *, rounds: int) -> str:
    """A file of tasks whose uids, made of their contents, fall into different partitions of the judge's topic."""
    file, everywhere = folder / "one.yaml", list(range(TASKS))
    found: dict[int, str] = {}
    for text in (TASK.format(number=number, rounds=rounds) for number in range(200)):
        file.write_text(text)
        (task,) = load_paths([file], limits=None)
        uid = with_uid(task).metadata.uid
        found.setdefault(DefaultPartitioner()(uid.encode(), everywhere, everywhere), text)
    return "---".join(found[partition] for partition in everywhere)


class Workers:
    """The lab's own sink and judge and those that join them, each with its pages."""

    def __init__(self, run: Run) -> None:
        self._stack = run.stack
        self.pages = {name: run.stack.health[name] for name in ("sink", "judge")}

    def add(self, name: str) -> None:
        role: Role = "sink" if name.startswith("sink") else "judge"
        assert self._stack.kafka is not None
        listen = f"127.0.0.1:{free_port()}"
        self.pages[name] = listen
        environment = environments.streams(
            kafka=environments.KafkaDoor(variables=self._stack.kafka.environment(role)),
            clickhouse=self._stack.clickhouse(),
            health=listen,
        )
        service = Service(name=name, module="streams", arguments=(role,), environment=environment, prefix=AFTER)
        self._stack.supervisor.start(service)

    async def ready(self, *names: str) -> None:
        """In their groups, and at work."""
        for name in names:
            url = f"http://{self.pages[name]}/readyz"
            hint = lambda name=name: self._stack.supervisor.last_lines(name)  # noqa: E731
            await wait_until(lambda url=url: answers(url), what=name, timeout_s=120, hint=hint)

    def taken(self, name: str) -> int:
        """How many records of its topic a worker has taken, by its own count."""
        topic = WORK[name.partition("-")[0]]
        with urllib.request.urlopen(f"http://{self.pages[name]}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        counts = [
            line.rsplit(" ", 1)[1] for line in lines if line.startswith(f'kpatrol_records_total{{topic="{topic}"')
        ]
        return int(float(counts[0])) if counts else 0

    async def share(self, *names: str) -> None:
        """Each of them has taken some of its group's records."""
        end = asyncio.get_running_loop().time() + 90
        while not all(counts := [await asyncio.to_thread(self.taken, name) for name in names]):
            assert asyncio.get_running_loop().time() < end, dict(zip(names, counts, strict=True))
            await asyncio.sleep(0.3)


async def all_add_up(run: Run, *, rounds: int) -> None:
    """Every round of every task is final, nothing of it is missing, and nothing stands there twice."""
    final = await run.all_final(rounds * TASKS, timeout_s=180)
    assert_adds_up([round_json(v) for v in final])
    assert Counter(v.round for v in final) == Counter({n + 1: TASKS for n in range(rounds)})
    for verdict in final:
        assert (verdict.planned, verdict.declared_missing) == (PLANNED, 0)
        assert stored_by_sql(run, verdict.round_id) == (verdict.stored, verdict.stored)
