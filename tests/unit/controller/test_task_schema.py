"""The description of the kinds: one source, complete, and equal to what Python builds."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.tasks import KINDS, load_tasks, scheduleform
from controller.tasks.hostnames import is_domain, is_host, is_url
from controller.tasks.schema import ListOf, Nested, fields_of, from_plain, to_plain
from controller.tasks.yamlnodes import resolve


def models(model: type[Any]) -> Iterator[type[Any]]:
    yield model
    for field in fields_of(model):
        shape = field.shape.item if isinstance(field.shape, ListOf) else field.shape
        if isinstance(shape, Nested):
            yield from models(shape.model)


ALL = sorted({m for kind in KINDS.values() for m in models(kind)}, key=lambda m: m.__name__)


@pytest.mark.parametrize("model", ALL, ids=lambda m: m.__name__)
def test_every_field_says_what_it_means(model: type[Any]) -> None:
    assert all(field.description.endswith(".") for field in fields_of(model))
    assert len({field.name for field in fields_of(model)}) == len(fields_of(model))


@pytest.mark.parametrize("model", ALL, ids=lambda m: m.__name__)
def test_every_rule_has_a_cel_expression_over_fields_that_exist(model: type[Any]) -> None:
    names = {field.name for field in fields_of(model)}
    for rule in model.RULES:
        assert rule.cel.startswith(("self.", "!has(self.", "!(has(self."))
        assert rule.field == "" or rule.field.split(".")[0] in names


def test_kdoctors_kinds_keep_their_group_and_plural() -> None:
    assert {(model.API_VERSION, model.KIND, model.PLURAL) for model in KINDS.values()} == {
        ("kdoctor.io/v1beta1", "NetReach", "netreaches"),
        ("kdoctor.io/v1beta1", "AppHttpHealthy", "apphttphealthies"),
        ("kdoctor.io/v1beta1", "Netdns", "netdnses"),
        ("kpatrol.io/v1beta1", "NetPatrol", "netpatrols"),
    }


def test_a_model_written_out_and_read_in_is_the_same() -> None:
    (task,) = load_tasks("apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {name: a}\n")
    plain = to_plain(task)
    assert plain["spec"]["request"] == {"durationInSecond": 2, "qps": 10, "perRequestTimeoutInMS": 500}
    assert from_plain(type(task), plain) == task


@given(st.text(max_size=40))
def test_any_text_is_a_schedule_or_not_but_never_an_accident(text: str) -> None:
    assert scheduleform.parse(text) is None or len(text.split(" ")) in (2, 5)


@given(st.lists(st.text(alphabet="0123456789*/,-?LW#SUNJAN", max_size=6), min_size=5, max_size=5))
def test_any_five_cron_fields_are_judged_without_an_exception(fields: list[str]) -> None:
    scheduleform.parse(" ".join(fields))


@given(st.integers(0, 999_999), st.integers(1, 999_999))
def test_two_numbers_are_delay_and_interval(delay: int, interval: int) -> None:
    assert scheduleform.parse(f"{delay} {interval}") == scheduleform.Simple(
        delay_minute=delay, interval_minute=interval
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("Off", False), ("~", None), ("", None), ("010", 8), ("0x1f", 31), ("1_000", 1000),
        ("1:30", "1:30"), ("1e3", 1000.0), ("-.5", -0.5), ("1.", 1.0), ("5s", "5s"), ("2024-01-02", "2024-01-02"),
    ],
)  # fmt: skip
def test_plain_scalars_are_read_as_kubectl_reads_them(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize("host", ["nginx", "nginx.ns1", "a.b.", "10.0.0.1", "::1", "_dns.example", "x" * 63])
def test_names_and_addresses_are_hosts(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize("host", ["", ".", "a..b", "-a", "a-", "1.2.3.999", "1.2.3", "x" * 64, "a b", "fe80::1%eth0"])
def test_what_is_neither_name_nor_address_is_no_host(host: str) -> None:
    assert not is_host(host)


@given(st.text(max_size=60))
def test_any_text_is_judged_as_url_and_domain_without_an_exception(text: str) -> None:
    assert is_url(text) in (True, False)
    assert is_domain(text) in (True, False)
