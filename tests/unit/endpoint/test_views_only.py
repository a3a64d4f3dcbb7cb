"""Whether a statement names a base table: from the engine's parse, without an engine."""

import pytest

from kpatrol.endpoint.sql_tokens import Refused, tokens
from kpatrol.endpoint.views_only import Bases, check, parse

BASES = Bases(database="kpatrol", tables=frozenset({"probe", "agent"}))


def refused(sql: str, ast: str, settings: dict[str, str] | None = None) -> bool:
    stream = list(tokens(sql))
    try:
        check(ast=ast, stream=stream, verb=stream[0].upper, settings=settings or {}, bases=BASES)
    except Refused as error:
        return error.code == 497
    return False


def in_call(name: str) -> str:
    return f"Q (children 1)\n Function in (children 1)\n  ExpressionList (children 2)\n   Literal 1\n   {name}\n"


def test_the_tree_follows_the_indentation() -> None:
    root = parse("A (children 2)\n B\n C (children 1)\n  D (alias x)\n")
    (a,) = root.children
    assert [c.text for c in a.children] == ["B", "C"]
    assert a.children[1].children[0].text == "D (alias x)"


@pytest.mark.parametrize("name", ["probe", "kpatrol.probe", "probe (alias v_probe)"])
def test_a_table_in_its_place_is_refused(name: str) -> None:
    assert refused("SELECT 1", f"Q (children 1)\n TableIdentifier {name}\n")
    assert refused("SELECT 1", in_call(f"Identifier {name}"))


def test_views_columns_and_other_databases_pass() -> None:
    assert not refused("SELECT agent FROM v_probe", "Q (children 2)\n Identifier agent\n TableIdentifier v_probe\n")
    assert not refused("SELECT 1", "Q (children 1)\n TableIdentifier system.agent\n")
    assert not refused("SELECT 1 FROM v ARRAY JOIN agent", "Q (children 1)\n TableIdentifier v\n")
    assert not refused("SELECT 1", in_call("Identifier v_probe"))
    assert not refused("SELECT agent AS p", "Q (children 1)\n Identifier agent (alias p)\n")


def test_another_name_for_a_table_is_followed() -> None:
    assert refused(
        "SELECT 1", in_call("Identifier p") + " Identifier q (alias p)\n Identifier kpatrol.probe (alias q)\n"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * APPLY(x -> x IN v) FROM v",
        "SELECT * APPLY(in(probe)) FROM v",
        "SELECT * APPLY (f((SELECT 1))) FROM v",
        "SHOW TABLES WHERE name IN (SELECT 1 FROM 'probe')",
        "SHOW CREATE TABLE `probe`",
        "SELECT 1 FROM `kpatrol`.probe",
        "SELECT 1 IN agent",
    ],
)
def test_what_the_parse_does_not_show_is_checked_by_its_tokens(sql: str) -> None:
    assert refused(sql, "Q\n")


@pytest.mark.parametrize(
    ("value", "is_refused"),
    [
        ("{'v_probe': 'agent = \\'node-1\\''}", False),
        ("{'v_probe': 'x IN (1, 2)'}", False),
        ("{'v_probe': 'x in probe'}", True),
        ("{'v_probe': 'nullIn(x, kpatrol.probe)'}", True),
        ("{'v_probe': 'x = (select 1)'}", True),
        ("{'v_probe': 'x = (s\\x65lect 1)'}", True),
    ],
)
def test_filters_compare_and_read_no_table(value: str, is_refused: bool) -> None:
    assert refused("SELECT 1", "Q\n", {"additional_table_filters": value}) is is_refused
