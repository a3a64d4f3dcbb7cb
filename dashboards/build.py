"""Boards as Grafana's classic JSON, by the Foundation SDK: layout, links, variables, annotations."""

import json
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

from dashboards.parts import ANNOTATIONS, Board, Column, Show, Variable
from dashboards.query import PLUGIN, ClickHouseQuery, ClickHouseTarget

SOURCE = common.DataSourceRef(type_val=PLUGIN, uid="${datasource}")
TAG = "kpatrol"
COLORS = ("green", "yellow", "red")
ACROSS = 24
AnyPanel = timeseries.Panel | table.Panel | stat.Panel | heatmap.Panel


def to_json(board: Board) -> str:
    """The file's text: stable order, so a change is a readable diff."""
    return json.dumps(build(board), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def build(board: Board) -> dashboard.Dashboard:
    """The dashboard as the SDK's value."""
    made = builders.Dashboard(board.title).uid(board.uid).description(board.description).tags([TAG]).readonly()
    made.time(board.since, "now").timezone("browser").refresh(board.refresh)
    made.tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    made.link(
        builders.DashboardLink("kpatrol")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
    made.with_variable(builders.DatasourceVariable("datasource").label("data source").type(PLUGIN))
    for choice in board.variables:
        made.with_variable(_variable(choice))
    for name, color, sql in ANNOTATIONS if board.annotated else ():
        made.annotation(_annotation(name, color, sql))
    names = [v.name for v in board.variables]
    number, top = 1, 0
    for title, shows in board.rows:
        made.with_row(builders.Row(title).id(number).grid_pos(dashboard.GridPos(h=1, w=ACROSS, x=0, y=top)))
        number, top = number + 1, top + 1
        for show, (x, y) in zip(shows, _places(shows, top), strict=True):
            where = dashboard.GridPos(h=show.tall, w=show.wide, x=x, y=y)
            made.with_panel(_panel(show, names).id(number).grid_pos(where))
            number += 1
        top = max((y + s.tall for s, (_, y) in zip(shows, _places(shows, top), strict=True)), default=top)
    return made.build()


def _places(shows: Sequence[Show], top: int) -> list[tuple[int, int]]:
    """Left to right, a new line when one is full; a line is as tall as its tallest."""
    places, x, y, tall = [], 0, top, 0
    for show in shows:
        if x + show.wide > ACROSS:
            x, y, tall = 0, y + tall, 0
        places.append((x, y))
        x, tall = x + show.wide, max(tall, show.tall)
    return places


def _variable(choice: Variable) -> builders.QueryVariable:
    made = builders.QueryVariable(choice.name).label(choice.label).datasource(SOURCE)
    made.query({"rawSql": choice.sql, "refId": "A"}).definition(choice.sql)
    made.refresh(dashboard.VariableRefresh.ON_DASHBOARD_LOAD).multi(choice.multi).include_all(choice.multi)
    made.sort(dashboard.VariableSort.DISABLED)
    if choice.multi:
        made.current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return made


def _annotation(name: str, color: str, sql: str) -> builders.AnnotationQuery:
    made = builders.AnnotationQuery().name(name).enable(True).hide(False).icon_color(color).datasource(SOURCE)
    return made.target(ClickHouseTarget(ClickHouseQuery(raw_sql=sql, ref_id="Anno")))


def _panel(show: Show, variables: Sequence[str]) -> AnyPanel:
    made: AnyPanel = _KINDS[show.kind](show, variables)
    made.title(show.title).description(show.description).datasource(SOURCE).unit(show.unit)
    made.with_target(ClickHouseTarget(ClickHouseQuery(raw_sql=show.sql, format=show.format)))
    if show.decimals is not None:
        made.decimals(show.decimals)
    if show.thresholds:
        made.thresholds(_thresholds(show.thresholds))
    return made


def _thresholds(values: Sequence[float]) -> builders.ThresholdsConfig:
    steps = [dashboard.Threshold(value=None, color=COLORS[0])]
    # Two equal ones: straight from good to bad.
    colors = [COLORS[2]] if len(set(values)) == 1 else COLORS[1:]
    steps += [dashboard.Threshold(value=v, color=c) for v, c in zip(sorted(set(values)), colors, strict=True)]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _course(show: Show, _: Sequence[str]) -> timeseries.Panel:
    made = timeseries.Panel().legend(_legend()).min(0).fill_opacity(5).span_nulls(False)
    made.show_points(common.VisibilityMode.AUTO).max_data_points(300)
    if show.log:
        made.scale_distribution(common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))
    return made


def _bars(show: Show, _: Sequence[str]) -> timeseries.Panel:
    made = _course(show, ()).draw_style(common.GraphDrawStyle.BARS).fill_opacity(70)
    return made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))


def _legend() -> common_builders.VizLegendOptions:
    return (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs([])
    )


def _stat(show: Show, _: Sequence[str]) -> stat.Panel:
    made = stat.Panel().reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    made.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.NONE).no_value("no data")
    if not show.thresholds:
        made.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color("text"))
    return made


def _heatmap(_: Show, __: Sequence[str]) -> heatmap.Panel:
    return heatmap.Panel().calculate(False).show_legend().max_data_points(200)


def _table(show: Show, variables: Sequence[str]) -> table.Panel:
    made = table.Panel().no_value("none")
    for column in show.columns:
        made.override_by_name(column.name, _properties(column, variables))
    # Carried for the links; nobody reads it.
    if any(("round", "round_id") in c.sends for c in show.columns):
        made.override_by_name("round_id", [_set("custom.hidden", True)])
    return made


def _properties(column: Column, variables: Sequence[str]) -> list[dashboard.DynamicConfigValue]:
    properties = []
    if column.unit:
        properties.append(_set("unit", column.unit))
    if column.thresholds:
        properties.append(_set("thresholds", _thresholds(column.thresholds).build()))
        # The number stays readable in the cell: colour only stresses it.
        properties.append(_set("custom.cellOptions", {"type": "color-text"}))
    if column.link:
        sends = {name: f"${{__data.fields.{value}}}" for name, value in column.sends}
        properties.append(_set("links", [_link(column.link, sends, variables)]))
    if column.width:
        properties.append(_set("custom.width", column.width))
    return properties


def _matrix(show: Show, variables: Sequence[str]) -> table.Panel:
    row, column, value = show.matrix
    made = table.Panel().no_value("none")
    made.with_transformation(
        dashboard.DataTransformerConfig(
            id_val="groupingToMatrix",
            options={"rowField": row, "columnField": column, "valueField": value, "emptyValue": "null"},
        )
    )
    made.cell_options(common.TableColoredBackgroundCellOptions())
    if show.link:
        made.data_links([_Link(_link(show.link, dict(show.sends), variables))])
    return made


class _Link(builders.DashboardLink):
    """A data link: the SDK has no builder of its own for it."""

    def __init__(self, link: dict[str, Any]) -> None:
        super().__init__(link["title"])
        self.url(link["url"]).target_blank(False).type(dashboard.DashboardLinkType.LINK)


def _link(uid: str, sends: dict[str, str], variables: Sequence[str]) -> dict[str, Any]:
    """To another board with the same time and choice, what was clicked in place of what was chosen."""
    kept = [f"${{{name}:queryparam}}" for name in variables if name not in sends and name in ("task", "proto")]
    chosen = [f"var-{name}={value}" for name, value in sends.items()]
    url = f"/d/{uid}?" + "&".join(["${__url_time_range}", "${datasource:queryparam}", *kept, *chosen])
    return {"title": f"show in {uid.removeprefix('kpatrol-')}", "url": url, "targetBlank": False}


def _set(name: str, value: Any) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val=name, value=value)


_KINDS: dict[str, Any] = {
    "timeseries": _course,
    "bars": _bars,
    "stat": _stat,
    "heatmap": _heatmap,
    "table": _table,
    "matrix": _matrix,
}
