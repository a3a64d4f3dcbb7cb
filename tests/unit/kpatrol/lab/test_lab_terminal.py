"""What the lab's terminal says: progress to its end, and refused task files once."""

import asyncio
from pathlib import Path

import pytest

from controller.source_files import StatusFolder
from controller.tasks import Problem
from kpatrol.lab.problems import Problems, follow_problems, read_problems, words
from kpatrol.lab.progress import Lines, State
from kpatrol.lab.targets import need_dns, target_specs

BAD = Problem(file="t.yaml", line=3, task="Netdns/d", field="spec.request.qps", found='"lots"', allowed="a number")


def state(rounds: int) -> State:
    return State(rounds=rounds, rounds_expected=3, requests=9, requests_planned=9, packets_lost=0, requests_failed=0)


def test_the_last_state_is_always_shown_and_only_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for rounds in (1, 2, 3):
        lines.update(state(rounds))
    lines.close()
    lines.close()
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].startswith("rounds 3/3")
    assert sum(line.startswith("rounds 3/3") for line in shown) == 1


def test_what_the_controller_writes_can_be_read(tmp_path: Path) -> None:
    assert read_problems(tmp_path) is None
    StatusFolder(tmp_path).write_problems([BAD])
    assert read_problems(tmp_path) == Problems(problems=(BAD,))
    StatusFolder(tmp_path).write_problems([])
    assert read_problems(tmp_path) == Problems()


def test_each_change_is_said_once_with_everything_needed_to_mend_it() -> None:
    refused = Problems(problems=(BAD,))
    text = words(Problems(), refused)
    for part in ("t.yaml:3", "spec.request.qps", '"lots"', "a number", "the last good set goes on"):
        assert part in text
    assert words(refused, refused) == ""
    assert "good again" in words(refused, Problems())


def test_a_change_reaches_the_terminal(tmp_path: Path) -> None:
    said: list[str] = []

    async def follow_until_said() -> None:
        heard = asyncio.Event()

        def say(text: str) -> None:
            said.append(text)
            heard.set()

        following = asyncio.create_task(follow_problems(tmp_path, say=say))
        await heard.wait()
        following.cancel()

    StatusFolder(tmp_path).write_problems([BAD])
    asyncio.run(asyncio.wait_for(follow_until_said(), timeout=30))
    assert len(said) == 1


def test_a_lab_that_stays_up_has_all_targets() -> None:
    assert [s.name for s in target_specs({"NetReach"})] == []
    assert [s.name for s in target_specs({"NetReach"}, everything=True)] == ["web", "dns"]
    assert need_dns({"Netdns"})
    assert not need_dns({"NetReach", "NetPatrol"})
