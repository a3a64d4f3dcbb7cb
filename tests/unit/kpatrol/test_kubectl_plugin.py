"""`kubectl kpatrol report`, with a kubectl that answers as the report API does."""

import json
import os
import subprocess
import sys
from pathlib import Path

from controller.report_api.document import document
from controller.report_api.listing import as_list
from kpatrol.kubectl_plugin import PATH, listed, shown
from kpatrol.reading.show import make_console
from tests.unit.controller.report_world import material

KUBECTL = """#!/bin/sh
for last; do :; done
echo "$@" >> {log}
case "$last" in
*missing*) echo 'Error from server (NotFound): no such report' >&2; exit 1 ;;
*reach-task*) cat {one} ;;
*) cat {every} ;;
esac
"""


def plugin(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    one, every = folder / "one.json", folder / "every.json"
    one.write_text(json.dumps(document(material())))
    every.write_text(json.dumps(as_list([document(material())], {})))
    program = folder / "kubectl"
    program.write_text(KUBECTL.format(one=one, every=every, log=folder / "log"))
    program.chmod(0o755)
    command = [sys.executable, "-c", "from kpatrol.kubectl_plugin import main; main()", *words]
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)


def test_one_report_is_asked_for_through_kubectl_and_its_result_is_the_exit_code(tmp_path: Path) -> None:
    done = plugin(tmp_path, "report", "netreach-reach-task", "--context", "prod", "--round", "2")
    assert (done.returncode, done.stderr) == (1, "")
    assert "AgentClusterV4IP_10.96.0.9:80" in done.stdout
    assert (tmp_path / "log").read_text() == f"--context=prod get --raw {PATH}/netreach-reach-task?round=2\n"
    missing = plugin(tmp_path, "report", "missing")
    assert (missing.returncode, "NotFound" in missing.stderr) == (2, True)


def test_tables_show_the_result_and_the_worst() -> None:
    console = make_console()
    with console.capture() as printed:
        console.print(shown(document(material())))
        console.print(listed([document(material())]))
    text = " ".join(printed.get().split())
    assert "worker-2" in text
    assert "97 %" in text
    assert "2/3" in text
