"""Settings of the agent: what is read, and the exact words for what cannot be used."""

from pathlib import Path

import pytest

from producers.config import Config, unknown_names
from topics.connection import BadConfiguration

GOOD = {
    "KPATROL_AGENT": "node-1",
    "KPATROL_IPV4": "127.0.0.1",
    "KPATROL_SPOOL_DIR": "/var/lib/kpatrol",
    "KPATROL_KAFKA_BOOTSTRAP": "localhost:9092",
}


def test_defaults_need_only_an_address_a_folder_and_kafka() -> None:
    config = Config.from_env(GOOD)
    assert config.identity.node == config.identity.agent == "node-1"
    assert config.serving.http_port == 80
    assert config.spool_dir == Path("/var/lib/kpatrol")
    assert config.heartbeat_s == 5.0
    assert config.health_listen is None


def test_everything_can_be_set() -> None:
    more = {
        "KPATROL_LOOKUPS": "kubernetes.default, example.test,",
        "KPATROL_HEALTH_LISTEN": "[::1]:8080",
        "KPATROL_HEARTBEAT_S": "0.5",
        "KPATROL_LOG_LEVEL": "debug",
        "KPATROL_IPV6": "fd00:0:0::1",
        "KPATROL_UDP_PORT": "862",
    }
    config = Config.from_env(GOOD | more)
    assert config.lookups == ("kubernetes.default", "example.test")
    assert config.health_listen == ("::1", 8080)
    assert config.heartbeat_s == 0.5
    assert config.log_level == "DEBUG"
    assert config.serving.ipv6 == "fd00::1"
    assert config.serving.udp_port == 862


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"KPATROL_IPV4": "10.0.0"}, "KPATROL_IPV4: found '10.0.0', allowed: an IPv4 address"),
        ({"KPATROL_IPV4": "fd00::1"}, "KPATROL_IPV4: found 'fd00::1', allowed: an IPv4 address"),
        (
            {"KPATROL_IPV4": ""},
            "KPATROL_IPV4, KPATROL_IPV6, KPATROL_POD_IPS: none is set, expected the address peers reach us at",
        ),
        ({"KPATROL_HTTP_PORT": "http"}, "KPATROL_HTTP_PORT: found 'http', allowed: a whole number from 0 to 65535"),
        ({"KPATROL_UDP_PORT": "65536"}, "KPATROL_UDP_PORT: found '65536', allowed: a whole number from 0 to 65535"),
        ({"KPATROL_HEARTBEAT_S": "0"}, "KPATROL_HEARTBEAT_S: found '0', allowed: seconds from 0.1 to 3600"),
        ({"KPATROL_HEARTBEAT_S": "nan"}, "KPATROL_HEARTBEAT_S: found 'nan', allowed: seconds from 0.1 to 3600"),
        (
            {"KPATROL_SPOOL_MAX_BYTES": "5"},
            "KPATROL_SPOOL_MAX_BYTES: found '5', allowed: a whole number from 1048576 to 17592186044416",
        ),
        ({"KPATROL_SPOOL_DIR": ""}, "KPATROL_SPOOL_DIR: not set, expected a folder that outlives the process"),
        ({"KPATROL_LOG_LEVEL": "loud"}, "KPATROL_LOG_LEVEL: found 'loud', allowed: DEBUG, INFO, WARNING, ERROR"),
        ({"KPATROL_HEALTH_LISTEN": "8080"}, "KPATROL_HEALTH_LISTEN: found '8080', allowed: host:port or :port"),
        (
            {"KPATROL_HTTPS_PORT": "443"},
            "KPATROL_HTTPS_PORT: found 443, allowed only with KPATROL_TLS_CERT_FILE and KPATROL_TLS_KEY_FILE",
        ),
        ({"KPATROL_KAFKA_BOOTSTRAP": ""}, "KPATROL_KAFKA_BOOTSTRAP: not set, expected host:port[,host:port…]"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(change: dict[str, str], message: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        Config.from_env(GOOD | change)
    assert str(caught.value) == message


def test_misspelt_names_are_told() -> None:
    env = GOOD | {"KPATROL_HEARTBEATS": "1", "KPATROL_LAB_ID": "x", "HOME": "/"}
    assert unknown_names(env) == ["KPATROL_HEARTBEATS"]


def test_addresses_may_come_as_kubernetes_gives_them() -> None:
    pod = {k: v for k, v in GOOD.items() if k != "KPATROL_IPV4"}
    serving = Config.from_env(pod | {"KPATROL_POD_IPS": "fd00::7,10.1.2.3", "KPATROL_HOST_IPS": "192.0.2.1"}).serving
    assert (serving.ipv4, serving.ipv6, serving.node_ipv4, serving.node_ipv6) == (
        "10.1.2.3",
        "fd00::7",
        "192.0.2.1",
        "",
    )
    # A pod's network is its own, with whatever further interfaces; the node's is not.
    assert serving.stream_addresses == ("0.0.0.0", "::")
    host = Config.from_env(pod | {"KPATROL_POD_IPS": "10.1.2.3", "KPATROL_FLAVOUR": "host"}).serving
    assert host.stream_addresses == host.addresses == ("10.1.2.3",)
    assert Config.from_env(GOOD).serving.stream_addresses == ("127.0.0.1",)
    with pytest.raises(BadConfiguration, match="KPATROL_POD_IPS: found 'x'"):
        Config.from_env(pod | {"KPATROL_POD_IPS": "x"})
