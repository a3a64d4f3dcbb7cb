"""Settings of a check: defaults, files, NetDoctor's config.json, one clear error each."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from kpatrol.check.config import DEFAULT_FILE, CheckConfig, init, read
from kpatrol.check.netdoctor import BadConfig
from kpatrol.cli import cli


def test_init_writes_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "check.yaml"
    init(path, force=False)
    assert read(path, overrides={}).config == CheckConfig()
    names = {field.encode_name for field in msgspec.structs.fields(CheckConfig)}
    assert set(yaml.safe_load(path.read_text())) == names, "every setting stands in the file"
    with pytest.raises(BadConfig, match=r"check\.yaml: is there already; say --force"):
        init(path, force=False)
    init(path, force=True)


def test_without_a_file_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(DEFAULT_FILE, overrides={"requests": 3}).config == CheckConfig(requests=3)
    with pytest.raises(BadConfig, match=r"other\.yaml: No such file"):
        read(Path("other.yaml"), overrides={})


BAD = [
    ("requests: 0", r"requests: Expected `int` >= 1"),
    ("requests: many", r"requests: Expected `int`, got `str`"),
    ("rate: 0", r"rate: Expected `float` > 0"),
    ("rate: 5000", r"rate: Expected `float` <= 1000"),
    ("timeoutMs: 1", r"timeoutMs: Expected `int` >= 10"),
    ("protocols: [sctp]", r"protocols\[0\]: Invalid enum value 'sctp', allowed: icmp, tcp, udp, http, dns"),
    ("protocols: []", r"protocols: found \[\], allowed: at least one of icmp, tcp, udp, http, dns"),
    ("protocols: tcp", r"protocols: Expected `array`, got `str`"),
    ("families: []", r"families: found \[\], allowed: 4, 6, or both"),
    ("families: [5]", r"families\[0\]: Invalid enum value 5, allowed: 4, 6"),
    ("mode: host", r"mode: Invalid enum value 'host', allowed: pod, node, node-to-pod, pod-to-node"),
    ("namespace: Not_A_Name", r"namespace: Expected `str` matching regex"),
    ("namespace: ''", r"namespace: Expected `str` matching regex"),
    ("ports: [80]", r"addresses: found \[\], allowed: both addresses and ports, or neither"),
    ("addresses: [10.0.0.1]", r"ports: found \[\], allowed: both addresses and ports, or neither"),
    ("{addresses: [example], ports: [80]}", r"addresses: found 'example', allowed: IP addresses"),
    ("{addresses: [10.0.0.1], ports: [0]}", r"ports\[0\]: Expected `int` >= 1"),
    ("{addresses: [10.0.0.1], ports: [65536]}", r"ports\[0\]: Expected `int` <= 65535"),
    ("addressProtocol: icmp", r"addressProtocol: Invalid enum value 'icmp'"),
    ("map: {node-1: here}", r"map: found 'here', allowed: IP addresses"),
    ("map: {node-1: 10.0.0.1}", r"map: found .* allowed: only with peerKubeconfig"),
    (
        "{peerKubeconfig: b, map: {10.0.0.0/16: 10.1.0.0/24}}",
        r"map: found .* allowed: a network and another of its size",
    ),
    ("{peerKubeconfig: b, map: {10.0.0.0/16: here}}", r"map: found .* allowed: a network and another of its size"),
    ("{peerKubeconfig: b, peerMap: {fd00::/64: 10.1.0.0/24}}", r"peerMap: found .* allowed: a network and another"),
    ("wave: -1", r"wave: Expected `int` >= 0"),
    ("peerMap: {node-1: 10.0.0.1}", r"peerMap: found .* allowed: only with peerKubeconfig"),
    ("dns: {server: kube-dns}", r"dns\.server: found 'kube-dns', allowed: an IP address"),
    ("dns: {port: 53}", r"port: no such setting|dns: .*unknown field `port`"),
    ("degree: -1", r"degree: Expected `int` >= 0"),
    ("waitS: 0", r"waitS: Expected `int` >= 1"),
    ("concurrency: 0", r"concurrency: Expected `int` >= 1"),
    ("excludeLabels: ['a b']", r"excludeLabels: found 'a b', allowed: label names"),
    ("keep: perhaps", r"keep: Expected `bool`, got `str`"),
    ("imagePullPolicy: Sometimes", r"imagePullPolicy: Invalid enum value 'Sometimes'"),
    ("kubeConfig: a", r"kubeConfig: no such setting, allowed: kubeconfig, context"),
    ("- a\n- b", r"found list, expected a mapping"),
    ("a: [", r"not YAML"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[text for text, _ in BAD])
def test_one_clear_error_each(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "check.yaml"
    path.write_text(text)
    with pytest.raises(BadConfig, match=words) as raised:
        read(path, overrides={})
    assert str(raised.value).startswith(f"{path}: ")
    result = CliRunner().invoke(cli, ["check", "--config", str(path)])
    assert result.exit_code == 2
    assert str(raised.value) in result.output


NETDOCTOR = {
    "namespace": "kosmos-system", "version": "v0.0.2", "mode": "pod", "protocol": "tcp", "podWaitTime": 30,
    "port": "8889", "maxNum": 3, "cmdTimeout": 10, "srcKubeConfig": "~/.kube/config",
    "srcImageRepository": "ghcr.io/kosmos-io",
}  # fmt: skip


def test_a_file_of_netdoctor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(NETDOCTOR))
    found = read(path, overrides={})
    assert found.config == CheckConfig(
        namespace="kosmos-system", protocols=("tcp", "http"), wait_s=30, concurrency=3, timeout_ms=10_000,
        kubeconfig=str(Path.home() / ".kube/config"), keep=True,
    )  # fmt: skip
    assert [note.split(" ")[0] for note in found.notes] == ["version", "srcImageRepository", "port"]


def test_its_custom_targets_and_names(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    custom = {"protocol": "udp", "customizedTargetIPList": ["10.0.0.9"], "customizedTargetPortList": ["53", "80"]}
    path.write_text(json.dumps(custom | {"autoClean": True, "targetHostToLookup": "kubernetes.default"}))
    config = read(path, overrides={}).config
    assert config.asked().addresses == (("10.0.0.9", 53), ("10.0.0.9", 80))
    assert (config.address_protocol, config.protocols, config.keep) == ("udp", (), False)
    assert config.dns.name == "kubernetes.default"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "sctp"}, "protocol: found 'sctp', allowed: tcp, icmp, udp, dns"),
        ({"maxNum": 0}, "concurrency: Expected `int` >= 1"),
        ({"cmdTimeout": "soon"}, "cmdTimeout: found 'soon', allowed: seconds from 1"),
        ({"colour": "red"}, "colour: no such setting"),
        ({"mode": "both"}, "mode: Invalid enum value 'both'"),
        ({"customizedTargetIPList": ["10.0.0.1"]}, "ports: found \\[\\]"),
    ],
)
def test_what_is_wrong_in_it_is_said(change: dict[str, object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(NETDOCTOR | change))
    with pytest.raises(BadConfig, match=words):
        read(path, overrides={})


OPTIONS = [
    ("check --kubeconfig /nowhere/config", "/nowhere/config: "),
    ("check --kubeconfig not.yaml", "not.yaml: "),
    ("check --kubeconfig empty.yaml", "empty.yaml: "),
    ("check --kubeconfig closed.yaml --context other", "other"),
    ("check --kubeconfig closed.yaml", "cannot be reached"),
    ("check --kubeconfig closed.yaml --peer-kubeconfig /nowhere/peer", "/nowhere/peer: "),
    ("check clean", "config"),
    ("check --requests 0", "requests: Expected `int` >= 1"),
    ("check --rate 0", "rate: Expected `float` > 0"),
    ("check --timeout-ms 5", "timeoutMs: Expected `int` >= 10"),
    ("check --wave -1", "wave: Expected `int` >= 0"),
    ("check --degree -1", "degree: Expected `int` >= 0"),
    ("check --wait-s 0", "waitS: Expected `int` >= 1"),
    ("check --namespace Not_A_Name", "namespace: Expected `str` matching regex"),
    ("check --mode host", "Invalid value for '--mode'"),
    ("check --protocol sctp", "Invalid value for '--protocol'"),
    ("check --family 5", "Invalid value for '--family'"),
    ("check --image-pull-policy Sometimes", "Invalid value for '--image-pull-policy'"),
    ("check --deadline 0", "Invalid value for '--deadline'"),
    ("check --junit /nowhere/junit.xml", "--junit: /nowhere/junit.xml: cannot be written"),
    ("check --html /nowhere/page.html", "--html: /nowhere/page.html: cannot be written"),
    ("check --state /nowhere/state.json", "--state: /nowhere/state.json: cannot be written"),
    ("check --config other.yaml", "other.yaml: No such file"),
    ("check --colour", "No such option: --colour"),
    ("check init /nowhere/check.yaml", "/nowhere/check.yaml: No such file"),
    ("resume --state /nowhere/state.json", "/nowhere/state.json: is not there: run `kpatrol check` first"),
]
CLOSED = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
"""


@pytest.mark.parametrize(("arguments", "words"), OPTIONS, ids=[arguments for arguments, _ in OPTIONS])
def test_options_that_cannot_work(arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    for name, text in (("not.yaml", "a: ["), ("empty.yaml", ""), ("closed.yaml", CLOSED)):
        (tmp_path / name).write_text(text)
    result = CliRunner().invoke(cli, arguments.split())
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit), result.exception


def test_who_reads_json_reads_the_trouble_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["check", "--kubeconfig", "/nowhere/config", "--json"])
    told = json.loads(result.stdout)
    assert (result.exit_code, told["exit_code"]) == (2, 2)
    assert told["error"].startswith("/nowhere/config: ")


def test_how_many_bad_inputs_have_their_error() -> None:
    assert len({text for text, _ in BAD} | {arguments for arguments, _ in OPTIONS}) >= 40


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not a state file"), ('{"version":1,"pairs":[],"nodes":[]}', "version: found 1, allowed: 2")],
)
def test_a_state_file_that_cannot_be_read(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    result = CliRunner().invoke(cli, ["resume", "--state", str(path)])
    assert result.exit_code == 2
    assert words in result.output
