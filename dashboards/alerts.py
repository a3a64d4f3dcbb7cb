"""Alert rules and the data source, as files that Grafana provisions. The product's own alarms need none of these: they
are for who has Grafana's notifications already, and to watch the pipeline itself.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from dashboards.query import PLUGIN

SOURCE_UID = "kpatrol-clickhouse"
FOLDER = "kpatrol"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `sql` gives text columns (labels) and one number; it fires while a row's number is above `above`."""

    uid: str
    title: str
    summary: str
    sql: str
    above: float
    for_: str = "5m"
    severity: str = "warning"
    # What silence means: "OK" where no row is the normal case, "Alerting" for heartbeats.
    no_data: str = "OK"
    minutes: int = 15


RULES: tuple[Rule, ...] = (
    Rule(
        uid="kpatrol-alarm-open",
        title="kpatrol: an alarm is open",
        summary="{{ $labels.task }}: {{ $labels.element }} {{ $labels.direction }} ({{ $labels.kind }})",
        sql="SELECT task, element, direction, kind, severity, count() AS alarms FROM v_alarm WHERE state != 'closed' "
        "GROUP BY task, element, direction, kind, severity",
        above=0,
        for_="0s",
    ),
    Rule(
        uid="kpatrol-loss",
        title="kpatrol: packets are lost",
        summary="{{ $labels.task }} over {{ $labels.protocol }} loses more than 1 % for certain (95 % interval)",
        sql="SELECT task, toString(proto) AS protocol, wilson_low(sum(v.lost), sum(v.sent)) AS at_least FROM v_node_1m AS v "
        "WHERE t >= toStartOfMinute($__fromTime) AND t <= $__toTime AND sent > 0 GROUP BY task, protocol",
        above=0.01,
    ),
    Rule(
        uid="kpatrol-unexplained",
        title="kpatrol: requests are unexplained",
        summary="{{ $labels.task }}: requests were planned and not stored, and nobody said why",
        sql="SELECT task, sum(greatest(unexplained, 0)) AS requests FROM v_round WHERE final = 1 "
        "AND round_at >= $__fromTime AND round_at <= $__toTime GROUP BY task",
        above=0,
        severity="critical",
        minutes=60,
    ),
    Rule(
        uid="kpatrol-agent-silent",
        title="kpatrol: an agent is silent",
        summary="{{ $labels.node }}: its agent has not reported for three intervals",
        sql="SELECT node, agent, count() AS silent FROM v_agent WHERE state = 'gone' AND silent_s < 86400 GROUP BY node, agent",
        above=0,
    ),
    Rule(
        uid="kpatrol-no-data",
        title="kpatrol: nothing is stored",
        summary="No request of the last 15 minutes is stored: agents, Kafka, the sink or ClickHouse are down",
        sql="SELECT 'all' AS tasks, dateDiff('second', max(t), now()) AS age_s FROM v_node_1m "
        "WHERE t >= $__fromTime AND t <= $__toTime HAVING count() > 0",
        above=900,
        severity="critical",
        no_data="Alerting",
        minutes=60,
    ),
    Rule(
        uid="kpatrol-rollup-behind",
        title="kpatrol: roll-ups are behind",
        summary="The roll-up job has written nothing for two hours: history ends there",
        sql="SELECT 'rollup' AS job, dateDiff('second', max(at), now64(3)) AS behind_s FROM v_rolled "
        "WHERE at >= now() - INTERVAL 7 DAY HAVING count() > 0",
        above=7200,
        no_data="Alerting",
        minutes=60,
    ),
)


def rules_yaml() -> str:
    """provisioning/alerting/kpatrol.yaml."""
    group = {
        "orgId": 1,
        "name": "kpatrol",
        "folder": FOLDER,
        "interval": "1m",
        "rules": [_rule(rule) for rule in RULES],
    }
    return _yaml({"apiVersion": 1, "groups": [group]})


def _rule(rule: Rule) -> dict[str, Any]:
    span = {"from": rule.minutes * 60, "to": 0}
    query = {
        "refId": "A",
        "relativeTimeRange": span,
        "datasourceUid": SOURCE_UID,
        "model": {
            "refId": "A",
            "datasource": {"type": PLUGIN, "uid": SOURCE_UID},
            "editorType": "sql",
            "queryType": "table",
            "format": 1,
            "rawSql": rule.sql,
        },
    }
    threshold = {
        "refId": "B",
        "relativeTimeRange": span,
        "datasourceUid": "__expr__",
        "model": {
            "refId": "B",
            "type": "threshold",
            "expression": "A",
            "conditions": [{"evaluator": {"type": "gt", "params": [rule.above]}}],
        },
    }
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "B",
        "data": [query, threshold],
        "for": rule.for_,
        "noDataState": rule.no_data,
        "execErrState": "Error",
        "annotations": {"summary": rule.summary},
        "labels": {"severity": rule.severity},
    }


def source_yaml() -> str:
    """provisioning/datasources/kpatrol.yaml: an account that only reads; address and password from the environment."""
    source = {
        "name": "kpatrol",
        "type": PLUGIN,
        "uid": SOURCE_UID,
        "jsonData": {
            "host": "$KPATROL_CLICKHOUSE_HOST",
            "port": "$KPATROL_CLICKHOUSE_PORT",
            "protocol": "http",
            "secure": False,
            "username": "reader",
            "defaultDatabase": "kpatrol",
            "dialTimeout": "5",
            "queryTimeout": "60",
        },
        "secureJsonData": {"password": "$KPATROL_CLICKHOUSE_PASSWORD"},
    }
    return _yaml({"apiVersion": 1, "datasources": [source]})


def provider_yaml() -> str:
    """provisioning/dashboards/kpatrol.yaml: the folder that Grafana reads the boards from."""
    provider = {
        "name": "kpatrol",
        "type": "file",
        "folder": FOLDER,
        "allowUiUpdates": False,
        "options": {"path": "/var/lib/grafana/dashboards/kpatrol"},
    }
    return _yaml({"apiVersion": 1, "providers": [provider]})


def _yaml(value: Any) -> str:
    return "# Written by `python -m dashboards`; change it there.\n" + yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True, width=120
    )
