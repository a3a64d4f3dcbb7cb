"""A lab driven from inside a test: things are held, killed and asked while rounds run."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.netmode import detect_mode
from kpatrol.lab.options import LabOptions
from kpatrol.lab.rounds import Rounds
from kpatrol.lab.stack import Stack
from kpatrol.lab.state import LabState, base_folder
from kpatrol.lab.taskfiles import check as check_files
from kpatrol.lab.taskfiles import lab_tasks
from kpatrol.reading.document import newest
from kpatrol.reading.store import CannotRead
from tests.integration.labs import last_words, leftovers
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import RoundScheduled


async def until(condition: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(0.3)
    return value


class Run:
    """One lab under attack."""

    def __init__(self, stack: Stack, rounds: Rounds) -> None:
        self.stack = stack
        self.rounds = rounds

    async def at(self, number: int, second: float) -> RoundScheduled:
        """Wait until so many seconds after the start of that round."""
        find = lambda: next((r for r in self.rounds.by_id.values() if r.number == number), None)  # noqa: E731
        scheduled: RoundScheduled = await until(find, timeout_s=120, what=f"round {number} published")
        await asyncio.sleep(max(0.0, scheduled.start_us / 1e6 + second - time.time()))
        return scheduled

    def verdicts(self) -> list[RoundVerdict]:
        try:
            return self.stack.store().verdicts()
        except CannotRead:
            return []

    async def all_final(self, rounds: int, *, timeout_s: float) -> list[RoundVerdict]:
        def done() -> list[RoundVerdict]:
            final = [v for v in newest(self.verdicts()) if v.final]
            return final if len(final) == rounds else []

        try:
            found: list[RoundVerdict] = await until(done, timeout_s=timeout_s, what="final verdicts of all rounds")
        except AssertionError as late:
            there = [(v.round, v.revision, v.final, v.verdict, v.why) for v in newest(self.verdicts())]
            raise AssertionError(f"{late}: {there}") from late
        return found


async def with_lab(
    tmp_path: Path,
    task: str,
    agents: int,
    attack: Callable[[Run], Awaitable[None]],
    *,
    brokers: int = 1,
    minute_s: float = 10,
    follow_ups: bool = False,
) -> None:
    """Start a lab with this task and so many agents, run the attack, stop everything."""
    file = tmp_path / "task.yaml"
    file.write_text(task)
    options = LabOptions(files=(file,), agents=agents, minute_s=minute_s, brokers=brokers, follow_ups=follow_ups)
    tasks = lab_tasks(check_files(options.files, limits=None), rounds=None)
    state = LabState.create(base_folder(os.environ))
    said: list[str] = []
    stack = Stack(lab=state, options=options, tasks=tasks, mode=detect_mode(os.environ).mode, say=said.append)
    following: asyncio.Task[None] | None = None
    try:
        await stack.start()
        rounds = Rounds(kafka=stack.kafka_door())
        following = asyncio.create_task(rounds.follow())
        await attack(Run(stack, rounds))
    except BaseException:
        print("\n".join(said[-20:]), last_words(stack.logs))
        raise
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await stack.stop()
        tear_down(state)
    assert leftovers(state.id) == []
