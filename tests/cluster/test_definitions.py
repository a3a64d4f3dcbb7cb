"""The definitions on a real API server: it refuses what `kpatrol validate` refuses, for the same field, and no more."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.crds.__main__ import text_of
from controller.crds.ceilings import binding, figures
from controller.tasks import Limits, TaskFileErrors, load_tasks
from kpatrol.lab.errors import CommandFailed
from tests.cluster.apiserver import ApiServer, running_apiserver

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests/unit/controller"
BAD = sorted((FILES / "bad").glob("*.yaml"))
GOOD = sorted((FILES / "good").glob("*.yaml"))
DEFINITIONS = ROOT / "deploy/crds"
# What stands before anything can be looked at by field: kubectl's own words for it.
WITHOUT_FIELD = {
    "not-yaml": "error converting YAML to JSON",
    "tab-as-indent": "error converting YAML to JSON",
    "document-is-a-list": "invalid object to validate",
    "kind-missing": "kind not set",
    "kind-misspelt": 'no matches for kind "NetDns"',
    "api-version-missing": "apiVersion not set",
    "api-version-of-other-kind": 'no matches for kind "NetPatrol" in version "kdoctor.io/v1beta1"',
    "api-version-unknown": 'no matches for kind "NetReach" in version "kdoctor.io/v1"',
    "metadata-missing": "metadata.name: Required value",
    "label-is-a-boolean": "cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels",
    "same-name-twice-in-a-kind": '"bad" already exists',
}
# kubectl itself keeps the last of two: the API server never learns of the first.
ONLY_IN_THE_FILE = {"field-twice"}


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    with running_apiserver() as server:
        server.kubectl("apply", "-f", str(DEFINITIONS))
        server.kubectl("create", "namespace", "kpatrol")
        for document in (figures(namespace="kpatrol", limits=Limits()), binding(namespace="kpatrol")):
            server.kubectl("apply", "-f", "-", stdin=text_of(document))
        names = [f"crd/{path.stem}" for path in DEFINITIONS.glob("*.io.yaml")]
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        _wait_for_ceilings(server)
        yield server


def _wait_for_ceilings(server: ApiServer) -> None:
    """Bindings are taken up within seconds of being made."""
    text = "apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {name: a}\nspec: {request: {qps: 21}}\n"
    for _ in range(400):
        if "from 1 to 20" in answer(server, text):
            return
    raise AssertionError("the ceilings are not kept")


def answer(server: ApiServer, text: str, *, dry: bool = True) -> str:
    """What the API server has against it; empty when it takes it."""
    try:
        server.kubectl("create", *(["--dry-run=server"] if dry else []), "-f", "-", stdin=text)
    except CommandFailed as error:
        return str(error)
    return ""


def fields(text: str) -> list[str]:
    with pytest.raises(TaskFileErrors) as caught:
        load_tasks(text)
    return [problem.field for problem in caught.value.problems]


def names(field: str, said: str) -> bool:
    """Whether the words name the field: by its path, or, where it is unknown or written twice, by its last part."""
    parent, _, last = field.rpartition(".")
    unknown = rf'unknown field "{re.escape(field)}"|unknown field "{re.escape(parent)}\.{last}|key "{last}" already set'
    unset = rf"{re.escape(parent)}\.{last}: Required|{re.escape(field)}: Invalid"
    return re.search(rf"{re.escape(field)}(?![\w.\[])|{unknown}|{unset}", said) is not None


def test_every_bad_file_is_refused_for_the_same_fields(api: ApiServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = dict(zip(BAD, pool.map(lambda path: answer(api, path.read_text(), dry=False), BAD), strict=True))
    api.kubectl("delete", "netreaches,apphttphealthies,netdnses,netpatrols", "--all")
    wrong = []
    for path, words in said.items():
        if path.stem in WITHOUT_FIELD:
            good = re.search(WITHOUT_FIELD[path.stem], words) is not None
        else:
            # An unknown field ends the reading: of several problems the API server then names that one alone.
            good = any(names(field, words) for field in fields(path.read_text()))
        if bool(words and good) == (path.stem in ONLY_IN_THE_FILE):
            wrong.append(f"{path.stem}: {fields(path.read_text())}: {words[-600:]}")
    assert not wrong, "\n".join(wrong)


def test_every_good_file_is_taken(api: ApiServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda path: answer(api, path.read_text()), GOOD))
    assert [f"{path.stem}: {words}" for path, words in zip(GOOD, said, strict=True) if words] == []


ONE_MORE = [
    ("NetReach", "spec: {agentSpec: {kind: Deployment, deploymentReplicas: 2}}", ""),
    ("NetReach", "spec: {schedule: {schedule: '0 1', roundTimeoutMinute: 1}}", ""),
    ("NetReach", "spec: {schedule: {schedule: '5-1 * * * *'}}", "spec.schedule.schedule"),
    ("NetReach", "spec: {schedule: {schedule: '0 0 31 4,6,9,11 *'}}", "spec.schedule.schedule"),
    ("NetReach", "spec: {schedule: {schedule: '*/5 1-3,7 ? jan-mar MON-FRI'}}", ""),
    ("NetReach", "spec: {schedule: {schedule: '1 000001', roundTimeoutMinute: 2}}", "spec.schedule.roundTimeoutMinute"),
    ("Netdns", "spec: {request: {}, expect: {}, target: {targetDns: {}}, schedule: {schedule: '0 1'}}", ""),
    ("Netdns", "spec: {target: {targetUser: {server: 'fe80::1%eth0'}}}", "spec.target.targetUser.server"),
    ("Netdns", "spec: {target: {targetUser: {server: '2001:db8::53'}}}", ""),
    ("Netdns", "spec: {target: {targetUser: {server: 10.0.0.300}}}", "spec.target.targetUser.server"),
    ("Netdns", "spec: {sourceAgentNodeSelector: {matchLabels: {a: b}}}", ""),
    ("AppHttpHealthy", "spec: {target: {host: 'http://[::1]:8080/a?b=c', method: GET}}", ""),
    ("AppHttpHealthy", "spec: {target: {host: 'http://[1.2.3.4]/', method: GET}}", "spec.target.host"),
    ("AppHttpHealthy", "spec: {target: {host: 'http://a:0/', method: GET}}", "spec.target.host"),
    ("AppHttpHealthy", "spec: {target: {host: 'http://nginx.ns1', method: GET, header: ['A: b:c']}}", ""),
]


@pytest.mark.parametrize(("kind", "spec", "field"), ONE_MORE)
def test_both_judge_alike_and_name_the_same_field(api: ApiServer, kind: str, spec: str, field: str) -> None:
    text = f"apiVersion: kdoctor.io/v1beta1\nkind: {kind}\nmetadata: {{name: one-more}}\n{spec}\n"
    words = answer(api, text)
    assert bool(words) == bool(field), words
    if field:
        assert fields(text) == [field]
        assert names(field, words), words
    else:
        assert load_tasks(text)


def test_a_spec_does_not_change_but_a_patrols_does(api: ApiServer) -> None:
    for name in ("netreach-own-agents", "netpatrol"):
        api.kubectl("create", "-f", str(FILES / "good" / f"{name}.yaml"))
    (task,) = api.kubectl("get", "netreaches", "-o", "name").split()
    for patch in ('{"request":{"qps":3}}', '{"agentSpec":{"env":[{"name":"A","value":"b"}]}}'):
        with pytest.raises(CommandFailed, match="a task's spec does not change"):
            api.kubectl("patch", task, "--type=merge", "-p", f'{{"spec":{patch}}}')
    patrol = api.kubectl("get", "netpatrols", "-o", "name").split()[0]
    api.kubectl("patch", patrol, "--type=merge", "-p", '{"spec":{"intervalSecond":30}}')
    api.kubectl("delete", "netreaches,netpatrols", "--all")


def test_ceilings_follow_their_configmap(api: ApiServer) -> None:
    text = "apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {name: a}\nspec: {request: {qps: %d}}\n"
    assert "found 21, allowed: whole number from 1 to 20" in answer(api, text % 21)
    patch = '{"data":{"NetReach":"500"}}'
    api.kubectl("patch", "configmap", "kpatrol-ceilings", "-n", "kpatrol", "--type=merge", "-p", patch)
    assert any(answer(api, text % 500) == "" for _ in range(400))
    assert "from 1 to 500" in answer(api, text % 501)


def test_kubectl_shows_kdoctors_columns_and_names(api: ApiServer) -> None:
    text = "apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {name: reach-task}\n"
    api.kubectl("create", "-f", "-", stdin=text)
    status = '{"status":{"finish":true,"expectedRound":1,"doneRound":1,"lastRoundStatus":"succeed"}}'
    api.kubectl("patch", "nr", "reach-task", "--subresource=status", "--type=merge", "-p", status)
    head, line = api.kubectl("get", "nr").splitlines()
    assert head.split() == ["NAME", "FINISH", "EXPECTEDROUND", "DONEROUND", "LASTROUNDSTATUS", "SCHEDULE"]
    assert line.split() == ["reach-task", "true", "1", "1", "succeed", "0", "1"]
    assert "netreach.kdoctor.io/reach-task" in api.kubectl("get", "kdoctor", "-o", "name")
    assert api.kubectl("get", "ahh,netdnses,patrol") == ""
    api.kubectl("delete", "netreaches", "--all")
