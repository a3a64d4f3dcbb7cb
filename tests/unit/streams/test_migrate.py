"""The files of the schema and the placeholders, without a database."""

import re
from pathlib import Path

import pytest
from clickhouse_migrations.migrator import split_statement_tokens
from clickhouse_migrations.substitution import substitute

import streams.migrate
from streams.migrate import Values
from topics.columns import COLUMNS
from topics.connection import BadConfiguration
from topics.outcome import Layer, Outcome, Proto

HERE = Path(streams.migrate.__file__).parent
SCHEMA = sorted((HERE / "schema").glob("*.sql"))
VIEWS = sorted((HERE / "views").glob("*.sql"))


@pytest.mark.parametrize("path", [*SCHEMA, *VIEWS], ids=lambda p: p.name)
def test_a_file_is_a_comment_and_one_statement(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("-- ")
    for values in (Values(), Values(cluster="main")):
        assert len(split_statement_tokens(substitute(text, values.placeholders(), path.name))) == 1


@pytest.mark.parametrize("path", SCHEMA, ids=lambda p: p.name)
def test_every_table_can_be_replicated_and_drops_repeats(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "${ON_CLUSTER}" in text
    if "MATERIALIZED VIEW" not in text:
        assert re.search(r"ENGINE = \$\{ENGINE\}\w*MergeTree", text)
        assert "non_replicated_deduplication_window = 10000" in text
        assert re.search(r"TTL .* INTERVAL \$\{\w+_DAYS\} DAY", text)


def test_the_probe_table_has_the_columns_of_the_contract_in_its_order() -> None:
    text = (HERE / "schema" / "0001_probe.sql").read_text(encoding="utf-8")
    found = re.findall(r"^    (\w+)\s+[A-Z]\w+", text, re.M)
    names = [name for name in found if name not in ("span_id", "kpart", "koff", "attrs")]
    assert names == [column.name for column in COLUMNS]


@pytest.mark.parametrize("enum", [Proto, Layer, Outcome])
def test_enumerations_agree_with_the_contract(enum: type[Proto] | type[Layer] | type[Outcome]) -> None:
    expected = "Enum8(" + ", ".join(f"'{member.name}' = {member.value}" for member in enum) + ")"
    text = (HERE / "schema" / "0001_probe.sql").read_text(encoding="utf-8")
    assert f"{enum.__name__.lower()} " in text
    assert expected in text


def test_every_outcome_is_counted_in_the_pair_table() -> None:
    text = (HERE / "sql" / "pair_columns.sql").read_text(encoding="utf-8")
    assert re.findall(r"'(\w+)', countIf", text) == [outcome.name for outcome in Outcome]


def test_values_from_the_environment_are_checked() -> None:
    values = Values.from_env({"KPATROL_RAW_DAYS": "3", "KPATROL_CLICKHOUSE_CLUSTER": "main"})
    placeholders = values.placeholders()
    assert (placeholders["RAW_DAYS"], placeholders["ENGINE"]) == ("3", "Replicated")
    assert placeholders["ON_CLUSTER"] == "ON CLUSTER 'main'"
    for bad in ({"KPATROL_RAW_DAYS": "0"}, {"KPATROL_YEAR_DAYS": "x"}, {"KPATROL_CLICKHOUSE_CLUSTER": "a' b"}):
        with pytest.raises(BadConfiguration, match="found"):
            Values.from_env(bad)


def test_without_a_cluster_nothing_of_one_is_left() -> None:
    placeholders = Values().placeholders()
    assert (placeholders["ENGINE"], placeholders["ON_CLUSTER"]) == ("", "")
