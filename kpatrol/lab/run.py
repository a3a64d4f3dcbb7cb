"""`kpatrol lab`: check, start, run the tasks' rounds, report, stop; leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from controller.tasks import Limits
from kpatrol.lab import loopback, netmode
from kpatrol.lab.errors import LabError
from kpatrol.lab.faults import parse_fault
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.leftovers import clean_leftovers, tear_down
from kpatrol.lab.options import LabOptions
from kpatrol.lab.progress import Shown, State, shown
from kpatrol.lab.rounds import Rounds
from kpatrol.lab.stack import Stack, agent_names
from kpatrol.lab.state import USERNS_VARIABLE, LabState, base_folder
from kpatrol.lab.taskfiles import LabTask, check, lab_tasks
from kpatrol.reading.document import exit_code, newest, report_json
from kpatrol.reading.show import print_report
from kpatrol.reading.store import CannotRead
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import FOLLOW_UP

POLL_S = 0.3
# Verdicts may still be revised for a moment after all rounds have one.
UNKNOWN_WAIT_S = 60.0


def run(options: LabOptions, *, as_json: bool) -> int:
    """The whole command; returns the exit code. Raises LabError."""
    limits = Limits.with_max_qps(options.max_qps)
    read = check(options.files, limits=limits)
    tasks = lab_tasks(read, rounds=options.rounds)
    faults = [parse_fault(text, nodes=agent_names(options.agents)) for text in options.faults]
    mode = choose_mode(options.mode)
    if mode.mode == "loopback":
        for fault in faults:
            loopback.check_fault(fault)
    if mode.mode == "userns" and USERNS_VARIABLE not in os.environ:
        get_jars(cache_folder(os.environ), say=_to_stderr)  # inside there is no way out to fetch them
        netmode.enter_userns([sys.executable, "-m", "kpatrol", *sys.argv[1:]], os.environ)
    show = shown()
    try:
        show.say(f"network: {mode.mode} ({mode.reason})")
        for line in loopback.missing(read) if mode.mode == "loopback" else ():
            show.say(line)
        return asyncio.run(_run(options, tasks, mode, show, as_json=as_json))
    except KeyboardInterrupt:
        raise LabError("interrupted; everything was stopped") from None
    finally:
        show.close()


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def choose_mode(forced: str) -> netmode.Detected:
    """The network this machine allows, or the one asked for."""
    detected = netmode.detect_mode(os.environ)
    if not forced or forced == detected.mode:
        return detected
    if forced == "loopback" or (forced == "userns" and detected.mode == "root"):
        return netmode.Detected(mode=forced, reason="as asked")  # type: ignore[arg-type]
    raise LabError(f"--mode {forced}: this machine allows {detected.mode} ({detected.reason})")


async def _run(options: LabOptions, tasks: list[LabTask], mode: netmode.Detected, show: Shown, *, as_json: bool) -> int:
    base = base_folder(os.environ)
    for removed in await asyncio.to_thread(clean_leftovers, base):
        show.say(f"left behind by an earlier lab, removed now: {removed}")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    state = LabState.create(base)
    stack = Stack(lab=state, options=options, tasks=tasks, mode=mode.mode, say=show.say)
    show.say(f"lab {state.id}: logs in {stack.logs}")
    try:
        verdicts = await _unless_stopped(_rounds(stack, tasks, options, show), stop)
        if verdicts is None:
            raise LabError("interrupted; everything was stopped")
        await _report(stack, verdicts, show, as_json=as_json)
        if options.keep:
            show.close()
            _to_stderr(stack.addresses_text())
            await stop.wait()
        return exit_code(verdicts, expected_rounds=_expected(tasks))
    finally:
        await stack.stop()
        if options.logs is not None:
            shutil.copytree(stack.logs, options.logs, dirs_exist_ok=True)
        removed = await asyncio.to_thread(tear_down, state)
        for failure in removed.failures:
            _to_stderr(f"lab: {failure}")


async def _unless_stopped(
    work: Coroutine[Any, Any, list[RoundVerdict]], stop: asyncio.Event
) -> list[RoundVerdict] | None:
    running = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.done():
        return running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return None


def _expected(tasks: Sequence[LabTask]) -> int:
    return sum(task.rounds for task in tasks if task.rounds > 0)


async def _rounds(stack: Stack, tasks: list[LabTask], options: LabOptions, show: Shown) -> list[RoundVerdict]:
    """Start everything and wait until every round has its final verdict, or until the time is over."""
    began = time.monotonic()
    await stack.start()
    show.say(f"ready after {time.monotonic() - began:.1f} s")
    rounds = Rounds(kafka=stack.kafka_door())
    injecting = asyncio.create_task(stack.inject(rounds))
    following = asyncio.create_task(rounds.follow())
    try:
        return await _watch(stack, rounds, tasks, options, show)
    finally:
        for task in (injecting, following):
            task.cancel()
        await asyncio.gather(injecting, following, return_exceptions=True)


async def _watch(
    stack: Stack, rounds: Rounds, tasks: list[LabTask], options: LabOptions, show: Shown
) -> list[RoundVerdict]:
    end = time.monotonic() + options.timeout_s
    expected = _expected(tasks)
    endless = any(task.rounds < 0 for task in tasks)
    all_judged_at: float | None = None
    while True:
        await asyncio.sleep(POLL_S)
        if stack.failed():
            raise LabError(stack.failed())
        verdicts = await asyncio.to_thread(_verdicts, stack)
        last = [v for v in newest(verdicts) if v.kind != FOLLOW_UP]
        final = [v for v in last if v.final]
        show.update(_state(verdicts=last, planned=rounds.planned(), expected=-1 if endless else expected, stack=stack))
        if not endless and len(final) >= expected:
            return verdicts
        if not endless and len(last) >= expected:
            all_judged_at = all_judged_at or time.monotonic()
            if time.monotonic() - all_judged_at > UNKNOWN_WAIT_S:
                return verdicts
        if time.monotonic() > end:
            show.say(f"time is over after {options.timeout_s:.0f} s: {len(final)} of {expected} rounds are final")
            return verdicts


def _verdicts(stack: Stack) -> list[RoundVerdict]:
    try:
        return stack.store().verdicts()
    except CannotRead:
        return []  # away for a moment; the next look tells


def _state(*, verdicts: list[RoundVerdict], planned: int, expected: int, stack: Stack) -> State:
    try:
        stored, lost, failed = stack.store().totals()
    except CannotRead:
        stored, lost, failed = 0, 0, 0
    return State(
        rounds=sum(v.final for v in verdicts),
        rounds_expected=expected,
        requests=stored,
        requests_planned=planned,
        packets_lost=lost,
        requests_failed=failed,
    )


async def _report(stack: Stack, verdicts: list[RoundVerdict], show: Shown, *, as_json: bool) -> None:
    show.close()
    faults = await asyncio.to_thread(stack.fault_counts)
    if as_json:
        document = report_json(verdicts) | {"faults": [f.json() for f in faults], "machine": stack.machine()}
        print(json.dumps(document, indent=2), flush=True)
        return
    print_report(stack.store(), verdicts)
    for fault in faults:
        print(fault.words())
    if faults:
        print("(a fault counts every packet on the wire; the report counts those that carried requests or replies)")
    print("machine: " + ", ".join(f"{value} {name}" for name, value in stack.machine().items()), flush=True)
