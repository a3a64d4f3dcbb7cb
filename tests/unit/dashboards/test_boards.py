"""Rules that every board keeps; the committed files are those of the boards."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.__main__ import HERE, stale
from dashboards.alerts import FOLDER, RULES
from dashboards.boards.all_boards import BOARDS
from dashboards.parts import ANNOTATIONS
from dashboards.query import register

FILES = sorted((HERE / "json").glob("*.json"))
VIEWS = {p.stem.split("_", 1)[1] for p in (HERE.parent / "streams" / "views").glob("*.sql")}
# Not a Grafana unit: shown as a suffix.
UNITS = {"short", "percentunit", "µs", "s", "ms", "reqps", "wps", "decbytes"}


def board(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def panels(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [p for p in found["panels"] if p["type"] != "row"]


def queries(found: dict[str, Any]) -> list[str]:
    sql = [t["rawSql"] for p in panels(found) for t in p["targets"]]
    sql += [v["query"]["rawSql"] for v in found["templating"]["list"] if v["type"] == "query"]
    return sql + [a["target"]["rawSql"] for a in found.get("annotations", {}).get("list", []) if "target" in a]


def test_the_committed_files_are_current() -> None:
    assert stale() == [], "run `python -m dashboards`"
    assert len(FILES) == len(BOARDS) == 9


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_identity_title_and_panels(path: Path) -> None:
    found = board(path)
    assert found["uid"] == path.stem
    assert found["title"].startswith("kpatrol / ")
    assert found["description"]
    assert "kpatrol" in found["tags"]
    ids = [p["id"] for p in found["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(found):
        assert panel["title"]
        assert panel["description"].endswith((".", "?"))
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(t["datasource"]["uid"] == "${datasource}" for t in panel["targets"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_panels_do_not_overlap_and_stay_inside(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board(path)["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_queries_read_views_bound_time_and_name_columns(path: Path) -> None:
    found = board(path)
    defined = {v["name"] for v in found["templating"]["list"]}
    for sql in queries(found):
        read = set(re.findall(r"\b(?:FROM|(?<!ARRAY )JOIN)\s+(\w+)", sql))
        assert read
        assert read <= VIEWS, sql
        assert all(name.startswith("v_") for name in read), sql
        assert "SELECT *" not in sql
        assert not re.search(r"\bSETTINGS\b", sql)
        used = set(re.findall(r"\$\{([a-z]\w*)[:}]", sql)) | set(re.findall(r"\$([a-z]\w*)", sql))
        assert used <= defined, sql
        small = read <= {"v_alarm", "v_agent", "v_rolled"}
        assert small or re.search(r"\$__fromTime|\$__timeFilter|INTERVAL \d+ (?:DAY|HOUR)|round_id = ", sql), sql


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_links_lead_to_boards_and_keep_time_and_choice(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    known = {p.stem: {v["name"] for v in board(p)["templating"]["list"]} for p in FILES}
    for url in re.findall(r'"/d/([^"]+)"', text):
        uid, _, arguments = url.partition("?")
        assert uid in known, url
        assert "${__url_time_range}" in arguments
        assert set(re.findall(r"var-(\w+)=", arguments)) <= known[uid], url
    assert '"keepTime": true' in text
    assert '"includeVars": true' in text


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_colour_is_never_without_text(path: Path) -> None:
    for panel in panels(board(path)):
        options = json.dumps(panel["fieldConfig"])
        assert '"mode": "lcd"' not in options
        if panel["type"] == "stat":
            assert panel["options"].get("textMode", "auto") in ("auto", "value", "value_and_name")
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"]


def test_the_sdk_reads_every_file_back_to_the_same_text() -> None:
    register_default_plugins()
    register()
    for path in FILES:
        again = json.dumps(
            Dashboard.from_json(board(path)), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False
        )
        assert again + "\n" == path.read_text(encoding="utf-8"), path.name


def test_boards_with_courses_show_alarms_and_events() -> None:
    for path in FILES:
        found = board(path)
        if any(p["type"] == "timeseries" for p in panels(found)):
            assert {a["name"] for a in found["annotations"]["list"]} >= {name for name, _, _ in ANNOTATIONS}


def test_provisioning_is_whole() -> None:
    rules = yaml.safe_load((HERE / "provisioning" / "alerting" / "kpatrol.yaml").read_text())
    (group,) = rules["groups"]
    assert group["folder"] == FOLDER
    assert [r["uid"] for r in group["rules"]] == [r.uid for r in RULES]
    for rule in group["rules"]:
        assert rule["condition"] == rule["data"][-1]["refId"]
        assert rule["annotations"]["summary"]
        assert "$__conditionalAll" not in rule["data"][0]["model"]["rawSql"]
        assert not re.search(r"\$\{", rule["data"][0]["model"]["rawSql"])
    (source,) = yaml.safe_load((HERE / "provisioning" / "datasources" / "kpatrol.yaml").read_text())["datasources"]
    assert source["uid"] == group["rules"][0]["data"][0]["datasourceUid"]
    assert source["jsonData"]["username"] == "reader"
    assert source["secureJsonData"]["password"].startswith("$")
