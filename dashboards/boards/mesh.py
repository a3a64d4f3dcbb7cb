"""Which pairs are bad? Node by node, zone by zone, the worst pairs."""

from dashboards.parts import (
    CHOSEN,
    HOURS,
    LOSS,
    NODE_NAMES,
    PROTOCOLS,
    TASKS,
    Board,
    Column,
    Show,
    Variable,
)

NODE = "$__conditionalAll(src_node IN (${node:singlequote}) OR dst IN (${node:singlequote}), $node)"
# A table of more nodes than this is no longer read: those with the most loss are shown, as source or destination.
SHOWN = 40
WORST_SOURCES = (
    f"src_node IN (SELECT src_node FROM v_pair_1h WHERE {HOURS} AND {CHOSEN} AND {NODE} AND dst_node != '' "
    f"GROUP BY src_node ORDER BY sum(lost) / greatest(sum(sent), 1) DESC, src_node LIMIT {SHOWN})"
)
WORST_GOALS = (
    f"dst IN (SELECT dst FROM v_pair_1h WHERE {HOURS} AND {CHOSEN} AND {NODE} AND dst_node != '' "
    f"GROUP BY dst ORDER BY sum(lost) / greatest(sum(sent), 1) DESC, dst LIMIT {SHOWN})"
)
CELLS = f"{HOURS} AND {CHOSEN} AND {NODE} AND dst_node != '' AND {WORST_SOURCES} AND {WORST_GOALS}"
TO_PAIR = (("src", "${__data.fields[0]}"), ("dst", "${__field.name}"))

BOARD = Board(
    uid="kpatrol-mesh",
    title="kpatrol / Mesh",
    description="Which pairs, nodes and zones are bad? From hourly sums: ranges of an hour and more.",
    variables=(TASKS, PROTOCOLS, Variable(name="node", label="node", sql=NODE_NAMES)),
    refresh="5m",
    rows=(
        (
            "Zones",
            (
                Show(
                    kind="matrix",
                    title="Packet loss, zone to zone",
                    description="Row: source zone; column: destination zone.",
                    sql="SELECT src_zone AS source, dst_zone AS destination, sum(v.lost) / sum(v.sent) AS loss "
                    f"FROM v_node_1h AS v WHERE {HOURS} AND {CHOSEN} AND sent > 0 GROUP BY source, destination "
                    "ORDER BY source, destination",
                    unit="percentunit",
                    thresholds=LOSS,
                    matrix=("source", "destination", "loss"),
                ),
                Show(
                    kind="matrix",
                    title="p99 delay, zone to zone",
                    description="Row: source zone; column: destination zone. Successful requests, from their planned time.",
                    sql="SELECT src_zone AS source, dst_zone AS destination, hist_quantile(sumMap(v.h), 0.99) AS p99 "
                    f"FROM v_node_1h AS v WHERE {HOURS} AND {CHOSEN} AND n_ok > 0 GROUP BY source, destination "
                    "ORDER BY source, destination",
                    unit="µs",
                    thresholds=(5_000, 50_000),
                    matrix=("source", "destination", "p99"),
                ),
            ),
        ),
        (
            "Nodes",
            (
                Show(
                    kind="matrix",
                    title="Packet loss, node to node",
                    description=f"Row: source; column: destination; the {SHOWN} of each that lose most. A click shows the pair.",
                    sql="SELECT src_node AS source, dst AS destination, sum(v.lost) / sum(v.sent) AS loss FROM v_pair_1h AS v "
                    f"WHERE {CELLS} AND sent > 0 GROUP BY source, destination ORDER BY source, destination",
                    unit="percentunit",
                    wide=24,
                    tall=14,
                    thresholds=LOSS,
                    matrix=("source", "destination", "loss"),
                    link="kpatrol-pair",
                    sends=TO_PAIR,
                ),
                Show(
                    kind="matrix",
                    title="p99 delay, node to node",
                    description=f"Row: source; column: destination; the {SHOWN} of each that lose most. A click shows the pair.",
                    sql="SELECT src_node AS source, dst AS destination, hist_quantile(sumMap(v.h), 0.99) AS p99 FROM v_pair_1h AS v "
                    f"WHERE {CELLS} AND n_ok > 0 GROUP BY source, destination ORDER BY source, destination",
                    unit="µs",
                    wide=24,
                    tall=14,
                    thresholds=(5_000, 50_000),
                    matrix=("source", "destination", "p99"),
                    link="kpatrol-pair",
                    sends=TO_PAIR,
                ),
            ),
        ),
        (
            "Worst",
            (
                Show(
                    kind="table",
                    title="Worst pairs by loss",
                    description="By the lower end of the 95 % interval, so few packets rank low. A click shows the pair.",
                    sql="SELECT src_node AS source, dst AS destination, sum(v.lost) / sum(v.sent) AS loss, "
                    "wilson_low(sum(v.lost), sum(v.sent)) AS at_least, sum(v.sent) AS packets FROM v_pair_1h AS v "
                    f"WHERE {HOURS} AND {CHOSEN} AND {NODE} AND sent > 0 GROUP BY source, destination "
                    "ORDER BY at_least DESC LIMIT 20",
                    columns=(
                        Column(
                            name="source",
                            link="kpatrol-pair",
                            sends=(("src", "source"), ("dst", "destination")),
                        ),
                        Column(name="loss", unit="percentunit", thresholds=LOSS),
                        Column(name="at_least", unit="percentunit"),
                    ),
                ),
                Show(
                    kind="table",
                    title="Slowest of the pairs that lose",
                    description="Delays of the 100 pairs with most loss, slowest first. A click shows the pair.",
                    sql="SELECT src_node AS source, dst AS destination, hist_quantile(sumMap(v.h), 0.5) AS p50, "
                    "hist_quantile(sumMap(v.h), 0.99) AS p99 FROM v_pair_1h AS v "
                    f"WHERE {HOURS} AND {CHOSEN} AND {NODE} AND n_ok > 0 AND (src_node, dst) IN (SELECT src_node, dst FROM v_pair_1h "
                    f"WHERE {HOURS} AND {CHOSEN} AND {NODE} GROUP BY src_node, dst ORDER BY sum(lost) DESC, src_node, dst LIMIT 100) "
                    "GROUP BY source, destination ORDER BY p99 DESC LIMIT 20",
                    columns=(
                        Column(
                            name="source",
                            link="kpatrol-pair",
                            sends=(("src", "source"), ("dst", "destination")),
                        ),
                        Column(name="p50", unit="µs"),
                        Column(name="p99", unit="µs", thresholds=(5_000, 50_000)),
                    ),
                ),
                Show(
                    kind="table",
                    title="Source or destination?",
                    description="A node that loses as a source only has a bad egress; as a destination only, a bad ingress.",
                    sql="SELECT name AS node, sumIf(lost, way = 'from') / sumIf(sent, way = 'from') AS as_source, "
                    "sumIf(lost, way = 'to') / sumIf(sent, way = 'to') AS as_destination FROM ("
                    f"SELECT src_node AS name, 'from' AS way, lost, sent FROM v_pair_1h WHERE {HOURS} AND {CHOSEN} AND {NODE} "
                    f"UNION ALL SELECT dst AS name, 'to' AS way, lost, sent FROM v_pair_1h WHERE {HOURS} AND {CHOSEN} AND {NODE} "
                    "AND dst_node != '') GROUP BY node ORDER BY greatest(as_source, as_destination) DESC LIMIT 20",
                    wide=24,
                    columns=(
                        Column(name="as_source", unit="percentunit", thresholds=LOSS),
                        Column(name="as_destination", unit="percentunit", thresholds=LOSS),
                    ),
                ),
            ),
        ),
    ),
)
