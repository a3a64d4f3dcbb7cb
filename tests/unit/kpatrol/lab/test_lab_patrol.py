"""A standing patrol in a lab that was asked for a number of rounds."""

from pathlib import Path

from controller.schedule import FOR_EVER, timing
from controller.tasks import load_paths, load_tasks
from kpatrol.lab.taskfiles import lab_tasks, lay_out

HEAD = "apiVersion: kpatrol.io/v1beta1\nkind: NetPatrol\nmetadata: {name: mesh}\n"


def test_a_patrol_is_endless_unless_a_number_is_said() -> None:
    endless, limited = load_tasks(HEAD, file="a.yaml"), load_tasks(HEAD + "spec: {roundNumber: 4}\n", file="b.yaml")
    assert [timing(task).rounds for task in (*endless, *limited)] == [FOR_EVER, 4]
    assert [task.rounds for task in lab_tasks([*endless, *limited], rounds=None)] == [FOR_EVER, 4]
    assert [task.rounds for task in lab_tasks([*endless, *limited], rounds=3)] == [3, 3]


def test_the_lab_tells_the_controller_how_many_rounds(tmp_path: Path) -> None:
    given, laid = tmp_path / "given.yaml", tmp_path / "laid"
    laid.mkdir()
    for spec in ("", "spec:\n", "spec: {intervalSecond: 20, roundNumber: 9}\n"):
        given.write_text(HEAD + spec)
        lay_out([given], folder=laid, rounds=2)
        (task,) = load_paths([laid])
        assert timing(task).rounds == 2
        lay_out([given], folder=laid, rounds=None)
        (task,) = load_paths([laid])
        assert timing(task).rounds == (9 if "9" in spec else FOR_EVER)
