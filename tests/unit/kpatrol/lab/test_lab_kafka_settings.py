"""Kafka's settings, ACLs, certificates, Java and Maven: everything about it that needs no broker."""

import ssl
from pathlib import Path

import pytest

from kpatrol.lab.acls import ACLS, ROLES, Grant, grants, wire_entries
from kpatrol.lab.java import java_version
from kpatrol.lab.kafka_config import BrokerSpec, Secrets, argument_file, scram_users, server_properties
from kpatrol.lab.kafka_jars import cache_folder, downloaded_bytes
from kpatrol.lab.tls import Authority
from topics.catalogue import TOPICS


def brokers(count: int) -> list[BrokerSpec]:
    return [
        BrokerSpec(
            node_id=i,
            folder=Path("/lab"),
            clients={"127.0.0.1": 21000 + i, "10.202.0.1": 22000 + i},
            controller_port=23000 + i,
            internal_port=24000 + i,
        )
        for i in range(1, count + 1)
    ]


def settings(count: int, secrets: Secrets | None = None) -> dict[str, str]:
    every = brokers(count)
    lines = server_properties(every[0], brokers=every, secrets=secrets).splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def secrets() -> Secrets:
    authority = Authority(name="test")
    return Secrets(
        passwords={"agent": "a", "sink": "s"},
        broker_password="b",
        certificate=authority.server_certificate(name="localhost", addresses=["127.0.0.1"]),
        authority_pem=authority.certificate_pem,
        super_users=("admin",),
    )


def test_one_broker_keeps_one_copy_three_keep_three() -> None:
    assert settings(1)["default.replication.factor"] == "1"
    assert settings(1)["min.insync.replicas"] == "1"
    three = settings(3)
    assert three["default.replication.factor"] == three["offsets.topic.replication.factor"] == "3"
    assert three["min.insync.replicas"] == "2"
    assert three["controller.quorum.voters"] == "1@127.0.0.1:23001,2@127.0.0.1:23002,3@127.0.0.1:23003"


def test_every_client_address_is_advertised_as_itself() -> None:
    advertised = settings(1)["advertised.listeners"]
    assert advertised == "CLIENT0://127.0.0.1:21001,CLIENT1://10.202.0.1:22001,INTERNAL://127.0.0.1:24001"


def test_secured_listeners_leave_no_plain_one() -> None:
    secured = settings(1, secrets())
    protocols = dict(entry.split(":") for entry in secured["listener.security.protocol.map"].split(","))
    assert protocols == {
        "CLIENT0": "SASL_SSL",
        "CLIENT1": "SASL_SSL",
        "INTERNAL": "SASL_PLAINTEXT",
        "CONTROLLER": "SASL_PLAINTEXT",
    }
    assert secured["super.users"] == "User:broker;User:admin"
    assert secured["ssl.keystore.key"].startswith("-----BEGIN PRIVATE KEY-----\\n")


def test_secrets_do_not_print() -> None:
    shown = repr(secrets())
    assert "PRIVATE KEY" not in shown
    assert "passwords" not in shown


def test_scram_users_are_arguments_of_the_storage_tool() -> None:
    assert scram_users({"sink": "s", "agent": "a"}) == [
        "--add-scram",
        "SCRAM-SHA-512=[name=agent,password=a]",
        "--add-scram",
        "SCRAM-SHA-512=[name=sink,password=s]",
    ]


def test_an_argument_file_quotes() -> None:
    assert argument_file(['a "b"', "c\\d"]) == '"a \\"b\\""\n"c\\\\d"\n'


def test_every_writer_may_write_and_every_reader_may_read() -> None:
    for topic in TOPICS.values():
        for role in ROLES:
            operations = {g.operation for g in ACLS[role] if g.resource == "topic" and g.name == topic.name}
            assert ("write" in operations) == (role in topic.writers), (role, topic.name)
            assert ("read" in operations) == (role in topic.readers or role == "reader"), (role, topic.name)


def test_every_role_named_by_a_topic_is_known() -> None:
    named = {role for topic in TOPICS.values() for role in (*topic.writers, *topic.readers)}
    assert named <= set(ROLES)


def test_readers_may_set_aside_what_they_cannot_decode() -> None:
    assert Grant(resource="topic", name="probe-results-v1-dlq", operation="write") in grants("sink")
    assert Grant(resource="topic", name="probe-results-v1-dlq", operation="write") not in grants("agent")


def test_apps_own_their_group_and_changelogs() -> None:
    assert Grant(resource="group", name="kpatrol-judge", operation="read") in grants("judge")
    assert Grant(resource="topic", name="kpatrol-judge-", operation="write", prefixed=True) in grants("judge")


def test_the_one_who_only_looks_on_may_write_nothing() -> None:
    assert {grant.operation for grant in grants("reader")} == {"read", "describe"}


def test_the_admin_needs_no_entry() -> None:
    assert grants("admin") == []
    assert {entry[3] for entry in wire_entries(ACLS)} == {f"User:{role}" for role in ROLES if role != "admin"}


def test_wire_entries_carry_the_protocols_numbers() -> None:
    acls = {"sink": [Grant(resource="topic", name="kpatrol-sink-", operation="read", prefixed=True)]}
    assert wire_entries(acls) == [(2, "kpatrol-sink-", 4, "User:sink", "*", 3, 3)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_292"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("no such thing", None),
    ],
)
def test_java_says_its_version(said: str, version: int | None) -> None:
    assert java_version(said) == version


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("[INFO] Downloaded from central: https://example.org/a.jar (5.6 MB at 3.1 MB/s)", 5_600_000),
        ("[INFO] Downloaded from central: https://example.org/a.pom (712 B at 9 kB/s)", 712),
        ("[INFO] Downloading from central: https://example.org/a.jar", 0),
    ],
)
def test_mavens_lines_say_how_much_has_come(line: str, size: int) -> None:
    assert downloaded_bytes(line) == size


def test_the_cache_follows_the_users_setting() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/kpatrol")
    assert cache_folder({"HOME": "/h"}) == Path("/h/.cache/kpatrol")


def test_a_certificate_is_accepted_by_who_trusts_its_authority(tmp_path: Path) -> None:
    authority = Authority(name="test")
    issued = authority.server_certificate(name="localhost", addresses=["127.0.0.1", "fd00::1"])
    (tmp_path / "cert.pem").write_text(issued.certificate_pem)
    (tmp_path / "key.pem").write_text(issued.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert handshake(server, authority, "127.0.0.1") == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        handshake(server, authority, "127.0.0.2")


def handshake(server: ssl.SSLContext, trusted: Authority, name: str) -> str | None:
    """Both ends in memory; returns the protocol agreed on."""
    client = ssl.create_default_context(cadata=trusted.certificate_pem)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname=name)
    theirs = server.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for end in (ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.version()
