"""`check`, `resume` and `clean` as somebody types them: what is remembered, what is refused, what has a bound."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kpatrol.check.cluster import Cluster, ClusterTrouble
from kpatrol.check.commands import Teller
from kpatrol.check.config import CheckConfig
from kpatrol.check.run import no_address
from kpatrol.cli import cli
from topics.mesh_members import Member

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "http://%s"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
"""


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    (tmp_path / "closed.yaml").write_text(KUBECONFIG % "127.0.0.1:1")
    return tmp_path


def left_behind(**values: Any) -> None:
    state = {"version": 2, "pairs": [["a", "b", "tcp"]], "nodes": [], **values}
    Path("kpatrol-check.state.json").write_text(json.dumps(state))


def test_resume_has_the_options_of_the_check(folder: Path) -> None:
    left_behind(options={"kubeconfig": "/nowhere/config", "protocols": ["tcp"]})
    result = invoke("resume")
    assert result.exit_code == 2
    assert "/nowhere/config: " in result.output
    # Its own go before them.
    assert f"{folder}/closed.yaml" in invoke("resume", "--kubeconfig", "closed.yaml").output


def test_resume_has_the_configuration_file_of_the_check() -> None:
    left_behind(config="/nowhere/check.yaml")
    assert "/nowhere/check.yaml: No such file" in invoke("resume").output


def test_resume_has_nothing_to_ask_where_all_was_good() -> None:
    left_behind(pairs=[])
    result = invoke("resume")
    assert result.exit_code == 0
    assert "everything was good in the last check; nothing to ask again" in result.output


def test_resume_is_about_the_cluster_of_the_check_and_no_other() -> None:
    left_behind(clusters=["https://east:6443"])
    result = invoke("resume", "--kubeconfig", "closed.yaml")
    assert result.exit_code == 2
    assert "the last check was of https://east:6443; the kubeconfig leads to http://127.0.0.1:1" in result.output


def test_clean_takes_the_options_of_a_check_before_and_behind_the_word() -> None:
    for arguments in (("clean", "--kubeconfig", "closed.yaml"), ("--kubeconfig", "closed.yaml", "clean")):
        result = invoke("check", *arguments)
        assert result.exit_code == 2
        assert "http://127.0.0.1:1): cannot be reached" in result.output


def test_an_api_server_that_never_answers_is_not_waited_for_beyond_the_end(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = folder / "silent.yaml"
        path.write_text(KUBECONFIG % f"127.0.0.1:{silent.getsockname()[1]}")
        cluster = Cluster(kubeconfig=str(path), context="", name="cluster")
        began_s = time.monotonic()
        cluster.until_s = began_s
        with pytest.raises(ClusterTrouble, match="cannot be reached"):
            cluster.nodes()
        assert time.monotonic() - began_s < 5
        cluster.close()


def test_what_is_no_tls_is_told_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"this is no TLS")

        thread = threading.Thread(target=answer)
        thread.start()
        path = folder / "no-tls.yaml"
        path.write_text((KUBECONFIG % f"127.0.0.1:{port}").replace("http:", "https:"))
        cluster = Cluster(kubeconfig=str(path), context="", name="cluster")
        with pytest.raises(ClusterTrouble) as raised:
            cluster.nodes()
        thread.join(5)
        cluster.close()
    told = str(raised.value)
    assert told.startswith(f"{path} (https://127.0.0.1:{port}): cannot be reached: ")
    assert "SSL" in told
    assert "\n" not in told


def test_an_address_family_that_nobody_has_is_nothing_to_be_asked() -> None:
    members = [
        Member(slot=slot, agent=f"a{slot}", node=f"n{slot}", ipv4=f"10.0.0.{slot}", http_port=80, tcp_port=7,
               udp_port=862)
        for slot in (1, 2)
    ]  # fmt: skip
    assert no_address(CheckConfig(families=(6,)), members)
    assert not no_address(CheckConfig(families=(4, 6)), members)
    assert not no_address(CheckConfig(families=(6,), protocols=("dns",)), members)


def test_who_tells_goes_on_where_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("click.echo", gone)
    teller = Teller()
    teller.step("removing the agents")
    teller.progress(done=1, of=1, left_s=0.0)
