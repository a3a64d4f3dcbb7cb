"""Configuration, metrics and the app's settings: what a stream service is started with."""

from pathlib import Path

import faust
import pytest

from streams.app import build, credentials
from streams.config import Listen, StreamsConfig, listen, session_timeout_s
from streams.metrics import Metrics
from streams.parts import Hold
from topics.connection import BadConfiguration, KafkaConnection

ENV = {"KPATROL_KAFKA_BOOTSTRAP": "k:9092", "KPATROL_CLICKHOUSE_URL": "http://writer@c:8123/kpatrol"}


def test_the_configuration_is_read_from_the_environment(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    config = StreamsConfig.from_env(
        {
            **ENV,
            "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(password),
            "KPATROL_HEALTH_LISTEN": "[::1]:8080",
            "KPATROL_LOG_LEVEL": "debug",
            "KPATROL_SESSION_TIMEOUT_S": "6",
        }
    )
    assert (config.clickhouse_password, config.health) == ("secret", Listen(host="::1", port=8080))
    assert (config.log_level, config.session_timeout_s) == ("DEBUG", 6.0)
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KPATROL_CLICKHOUSE_URL", ""),
        ("KPATROL_CLICKHOUSE_URL", "clickhouse://c"),
        ("KPATROL_LOG_LEVEL", "loud"),
        ("KPATROL_HEALTH_LISTEN", "8080"),
        ("KPATROL_HEALTH_LISTEN", "h:99999"),
        ("KPATROL_SESSION_TIMEOUT_S", "0"),
        ("KPATROL_SESSION_TIMEOUT_S", "soon"),
        ("KPATROL_KAFKA_BOOTSTRAP", ""),
        ("KPATROL_TRACES_TOPIC", "yes"),
        ("KPATROL_TRACES_ENDPOINT", "collector:4318"),
        ("KPATROL_TRACES_RECORDS", "some"),
    ],
)
def test_a_bad_setting_is_named_with_what_was_expected(name: str, value: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"{name}: .*expected|{name}: .*allowed"):
        StreamsConfig.from_env({**ENV, name: value})


def test_the_traces_need_no_clickhouse_but_somebody_to_tell() -> None:
    kafka = {"KPATROL_KAFKA_BOOTSTRAP": "k:9092"}
    with pytest.raises(BadConfiguration, match="KPATROL_TRACES_TOPIC: not set"):
        StreamsConfig.from_env(kafka, service="traces")
    assert StreamsConfig.from_env({**kafka, "KPATROL_TRACES_TOPIC": "true"}, service="traces").traces_topic
    config = StreamsConfig.from_env({**ENV, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"})
    assert config.otlp == {"metrics"}
    assert StreamsConfig.from_env(ENV).otlp == set()


def test_pages_are_off_without_an_address() -> None:
    assert listen("") is None
    assert session_timeout_s("20") == 20.0


def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.add("kpatrol_rows_stored_total", 500, table="probe")
    metrics.add("kpatrol_rows_stored_total", 500, table="probe")
    metrics.add("kpatrol_insert_seconds_total", 0.25, table='a"b')
    metrics.set("kpatrol_held_seconds", 3)
    assert metrics.render() == (
        "# TYPE kpatrol_insert_seconds_total counter\n"
        'kpatrol_insert_seconds_total{table="a\\"b"} 0.25\n'
        "# TYPE kpatrol_rows_stored_total counter\n"
        'kpatrol_rows_stored_total{table="probe"} 1000\n'
        "# TYPE kpatrol_held_seconds gauge\n"
        "kpatrol_held_seconds 3\n"
    )
    assert metrics.value("kpatrol_rows_stored_total", table="probe") == 1000


def test_several_waits_are_told_until_the_last_has_ended() -> None:
    hold = Hold()
    with hold.waiting("a"):
        with hold.waiting("b"):
            assert hold.reason == "a, b"
        assert hold.reason == "a"
        assert hold.seconds > 0
    assert (hold.reason, hold.seconds) == ("", 0.0)


def test_credentials_follow_the_connection() -> None:
    plain = KafkaConnection(bootstrap="k:1")
    scram = KafkaConnection(
        bootstrap="k:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="sink",
        sasl_password="p",
    )
    made = credentials(scram)
    assert credentials(plain) is None
    assert isinstance(made, faust.SASLCredentials)
    assert (made.protocol.value, made.mechanism.value, made.username) == ("SASL_SSL", "SCRAM-SHA-512", "sink")
    assert isinstance(credentials(KafkaConnection(bootstrap="k:1", security_protocol="SSL")), faust.SSLCredentials)
    assert (
        credentials(
            KafkaConnection(bootstrap="k:1", security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN")
        ).protocol.value
        == "SASL_PLAINTEXT"
    )


def test_the_app_has_all_brokers_and_the_timeouts_that_go_together() -> None:
    conf = build(app_id="kpatrol-x", kafka=KafkaConnection(bootstrap="a:1, b:2"), session_timeout_s=6).conf
    assert [(u.host, u.port) for u in conf.broker] == [("a", 1), ("b", 2)]
    assert conf.id == "kpatrol-x"
    assert conf.broker_heartbeat_interval * 3 <= conf.broker_session_timeout <= conf.broker_rebalance_timeout
    assert conf.broker_session_timeout <= conf.broker_request_timeout
    assert conf.broker_max_poll_interval >= 1e8
