"""One pair over time, both ways, per protocol and size; and its failing requests."""

from dashboards.parts import BY_HOUR, CHOSEN, HOURS, LOSS, NODE_NAMES, PROTOCOLS, TASKS, Board, Column, Show, Variable

ENDS = "src_node IN ('${src}', '${dst}') AND dst IN ('${src}', '${dst}') AND src_node != dst"
HERE = f"{HOURS} AND {CHOSEN} AND {ENDS}"
WAY = "concat(src_node, ' → ', dst)"
# Requests themselves: at most a day of them, however long the range.
RAW = "ts >= greatest($__fromTime, $__toTime - INTERVAL 1 DAY) AND ts <= $__toTime"

BOARD = Board(
    uid="kpatrol-pair",
    title="kpatrol / Pair",
    description="One pair over time: both ways, per protocol and size, and the requests that failed.",
    variables=(
        TASKS,
        PROTOCOLS,
        Variable(name="src", label="source", sql=NODE_NAMES, multi=False),
        Variable(
            name="dst",
            label="destination",
            sql="SELECT DISTINCT dst FROM v_pair_1d WHERE t >= now() - INTERVAL 7 DAY AND src_node = '${src}' ORDER BY dst",
            multi=False,
        ),
    ),
    since="now-24h",
    refresh="5m",
    rows=(
        (
            "Both ways",
            (
                Show(
                    kind="timeseries",
                    title="Packet loss, each way",
                    description="Lost of sent packets, by hour.",
                    sql=f"SELECT {BY_HOUR}, {WAY} AS way, sum(v.lost) / sum(v.sent) AS loss FROM v_pair_1h AS v "
                    f"WHERE {HERE} AND sent > 0 GROUP BY time, way ORDER BY time",
                    unit="percentunit",
                ),
                Show(
                    kind="timeseries",
                    title="p50 and p99 delay, each way",
                    description="Successful requests, from their planned time, by hour.",
                    sql=f"SELECT {BY_HOUR}, concat({WAY}, ' ', q.1) AS way, hist_quantile(sumMap(v.h), any(q.2)) AS delay "
                    "FROM v_pair_1h AS v ARRAY JOIN [('p50', 0.5), ('p99', 0.99)] AS q "
                    f"WHERE {HERE} AND n_ok > 0 GROUP BY time, way, q.2 ORDER BY time",
                    unit="µs",
                ),
                Show(
                    kind="timeseries",
                    title="Packet loss by protocol, from source to destination",
                    description="Lost of sent packets, by hour.",
                    sql=f"SELECT {BY_HOUR}, toString(proto) AS protocol, sum(v.lost) / sum(v.sent) AS loss FROM v_pair_1h AS v "
                    f"WHERE {HERE} AND src_node = '${{src}}' AND sent > 0 GROUP BY time, protocol ORDER BY time",
                    unit="percentunit",
                ),
                Show(
                    kind="table",
                    title="By way, protocol, layer and size",
                    description="Sums over the range, with the 95 % interval of loss.",
                    sql=f"SELECT {WAY} AS way, toString(proto) AS protocol, toString(layer) AS layer, size, sum(v.n) AS requests, "
                    "sum(v.n_ok) / sum(v.n_ok + v.n_lost) AS answered, sum(v.lost) / sum(v.sent) AS loss, "
                    "wilson_low(sum(v.lost), sum(v.sent)) AS at_least, wilson_high(sum(v.lost), sum(v.sent)) AS at_most, "
                    "hist_quantile(sumMap(v.h), 0.5) AS p50, hist_quantile(sumMap(v.h), 0.99) AS p99 FROM v_pair_1h AS v "
                    f"WHERE {HERE} AND sent > 0 GROUP BY way, protocol, layer, size ORDER BY way, protocol, layer, size",
                    columns=(
                        Column(name="size", unit="decbytes"),
                        Column(name="answered", unit="percentunit"),
                        Column(name="loss", unit="percentunit", thresholds=LOSS),
                        Column(name="at_least", unit="percentunit"),
                        Column(name="at_most", unit="percentunit"),
                        Column(name="p50", unit="µs"),
                        Column(name="p99", unit="µs"),
                    ),
                ),
            ),
        ),
        (
            "Requests",
            (
                Show(
                    kind="heatmap",
                    title="Delays, from source to destination",
                    description="How many requests took how long, by hour; a row of the map is a range of 9 %.",
                    sql=f"SELECT {BY_HOUR}, toString(round(exp2((kv.1 + 1) / 8))) AS le, toFloat64(sum(kv.2)) AS requests "
                    "FROM v_pair_1h AS v ARRAY JOIN CAST(h, 'Array(Tuple(UInt8, UInt64))') AS kv "
                    f"WHERE {HERE} AND src_node = '${{src}}' GROUP BY time, le, kv.1 ORDER BY time, kv.1",
                    unit="µs",
                ),
                Show(
                    kind="table",
                    title="Requests that failed or lost a packet",
                    description="The last day of the range at most, newest first. trace_id and span_id open it in a trace tool.",
                    sql=f"SELECT ts, {WAY} AS way, toString(proto) AS protocol, toString(outcome) AS outcome, error_type, lost, "
                    "total_us AS took, src_port, trace_id, span_id FROM v_probe "
                    f"WHERE {RAW} AND {CHOSEN} AND {ENDS} AND (outcome != 'ok' OR lost > 0) ORDER BY ts DESC LIMIT 200",
                    columns=(Column(name="took", unit="µs"),),
                ),
            ),
        ),
    ),
)
