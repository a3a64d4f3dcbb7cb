"""The ClickHouse data source's query, which the SDK does not know: a variant of its own."""

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.cog import builder, runtime, variants

from dashboards.parts import Format

PLUGIN = "grafana-clickhouse-datasource"
# The plugin's numbers.
FORMATS: dict[Format, int] = {"timeseries": 0, "table": 1}


@dataclass
class ClickHouseQuery(variants.Dataquery):
    """One query of a panel, variable or annotation."""

    raw_sql: str
    format: Format = "table"
    ref_id: str = "A"

    def to_json(self) -> dict[str, object]:
        """As Grafana stores it."""
        return {
            "datasource": {"type": PLUGIN, "uid": "${datasource}"},
            "editorType": "sql",
            "format": FORMATS[self.format],
            "pluginVersion": "4.0.0",
            "queryType": self.format,
            "rawSql": self.raw_sql,
            "refId": self.ref_id,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ClickHouseQuery":
        """From what Grafana stores."""
        return cls(raw_sql=data["rawSql"], format=data["queryType"], ref_id=data["refId"])


class ClickHouseTarget(builder.Builder[variants.Dataquery]):
    """What the SDK's panels take."""

    def __init__(self, query: ClickHouseQuery) -> None:
        self._query = query

    def build(self) -> variants.Dataquery:
        """The query."""
        return self._query


def register() -> None:
    """Let the SDK read our queries back."""
    runtime.register_dataquery_variant(
        runtime.DataqueryConfig(identifier=PLUGIN, from_json_hook=ClickHouseQuery.from_json)
    )
