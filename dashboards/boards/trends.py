"""Months and years: loss of 1 in 100,000 with its interval, availability, delays."""

from dashboards.parts import BY_DAY, CHOSEN, DAYS, LOSS, PROTOCOLS, TASKS, Board, Column, Show

FROM = f"FROM v_node_1d AS v WHERE {DAYS} AND {CHOSEN}"
SUMS = "sum(v.lost), sum(v.sent)"
HALF = "fromUnixTimestamp(intDiv(toUnixTimestamp($__fromTime) + toUnixTimestamp($__toTime), 2))"

BOARD = Board(
    uid="kpatrol-trends",
    title="kpatrol / Long-term trends",
    description="Months and years, day by day: loss with its 95 % interval, availability, delays.",
    variables=(TASKS, PROTOCOLS),
    since="now-90d",
    refresh="",
    rows=(
        (
            "Loss",
            (
                Show(
                    kind="timeseries",
                    title="Packet loss per day, with its 95 % interval",
                    description="Only where two days' intervals do not overlap has loss changed for certain.",
                    sql=f"SELECT {BY_DAY}, sum(v.lost) / sum(v.sent) AS loss, wilson_low({SUMS}) AS at_least, "
                    f"wilson_high({SUMS}) AS at_most {FROM} AND sent > 0 GROUP BY time ORDER BY time",
                    unit="percentunit",
                    wide=24,
                    decimals=5,
                ),
                Show(
                    kind="timeseries",
                    title="Packet loss per day by task",
                    description="Lost of sent packets.",
                    sql=f"SELECT {BY_DAY}, task, sum(v.lost) / sum(v.sent) AS loss {FROM} AND sent > 0 GROUP BY time, task ORDER BY time",
                    unit="percentunit",
                    decimals=5,
                    log=True,
                ),
                Show(
                    kind="timeseries",
                    title="Packet loss per day, zone to zone",
                    description="Lost of sent packets.",
                    sql=f"SELECT {BY_DAY}, concat(src_zone, ' → ', dst_zone) AS way, sum(v.lost) / sum(v.sent) AS loss {FROM} "
                    "AND sent > 0 GROUP BY time, way ORDER BY time",
                    unit="percentunit",
                    decimals=5,
                    log=True,
                ),
                Show(
                    kind="table",
                    title="Second half of the range against the first",
                    description="Per source zone and protocol: worse or better only where the intervals do not overlap.",
                    sql=f"SELECT src_zone AS zone, toString(proto) AS protocol, sumIf(v.lost, t < {HALF}) AS lost_1, "
                    f"sumIf(v.sent, t < {HALF}) AS sent_1, sumIf(v.lost, t >= {HALF}) AS lost_2, sumIf(v.sent, t >= {HALF}) AS sent_2, "
                    "lost_1 / sent_1 AS first_half, lost_2 / sent_2 AS second_half, "
                    "multiIf(wilson_low(lost_2, sent_2) > wilson_high(lost_1, sent_1), 'worse', "
                    "wilson_high(lost_2, sent_2) < wilson_low(lost_1, sent_1), 'better', 'same') AS change "
                    f"{FROM} GROUP BY zone, protocol ORDER BY change DESC, zone, protocol",
                    wide=24,
                    columns=(
                        Column(name="first_half", unit="percentunit", thresholds=LOSS),
                        Column(name="second_half", unit="percentunit", thresholds=LOSS),
                    ),
                ),
            ),
        ),
        (
            "Answers and delays",
            (
                Show(
                    kind="timeseries",
                    title="Requests answered per day",
                    description="Valid replies, of the requests that one was due for.",
                    sql=f"SELECT {BY_DAY}, task, sum(v.n_ok) / sum(v.n_ok + v.n_lost) AS answered {FROM} AND n_ok + n_lost > 0 "
                    "GROUP BY time, task ORDER BY time",
                    unit="percentunit",
                    decimals=4,
                ),
                Show(
                    kind="timeseries",
                    title="p50, p90 and p99 delay per day",
                    description="Successful requests, from their planned time.",
                    sql=f"SELECT {BY_DAY}, hist_quantile(sumMap(v.h), 0.5) AS p50, hist_quantile(sumMap(v.h), 0.9) AS p90, "
                    f"hist_quantile(sumMap(v.h), 0.99) AS p99 {FROM} AND n_ok > 0 GROUP BY time ORDER BY time",
                    unit="µs",
                ),
                Show(
                    kind="bars",
                    title="Rounds by verdict per day",
                    description="Last verdicts; unknown is never counted as good.",
                    sql="SELECT toStartOfDay(round_at) AS time, verdict, count() AS rounds FROM v_round "
                    "WHERE round_at >= $__fromTime AND round_at <= $__toTime AND $__conditionalAll(task IN (${task:singlequote}), $task) "
                    "GROUP BY time, verdict ORDER BY time",
                ),
                Show(
                    kind="table",
                    title="Source nodes over the range",
                    description="By the lower end of the 95 % interval of loss.",
                    sql="SELECT src_node AS node, sum(v.n) AS requests, sum(v.n_ok) / sum(v.n_ok + v.n_lost) AS answered, "
                    f"sum(v.lost) / sum(v.sent) AS loss, wilson_low({SUMS}) AS at_least, wilson_high({SUMS}) AS at_most "
                    f"{FROM} AND sent > 0 GROUP BY node ORDER BY at_least DESC LIMIT 50",
                    columns=(
                        Column(name="node", link="kpatrol-mesh", sends=(("node", "node"),)),
                        Column(name="answered", unit="percentunit"),
                        Column(name="loss", unit="percentunit", thresholds=LOSS),
                        Column(name="at_least", unit="percentunit"),
                        Column(name="at_most", unit="percentunit"),
                    ),
                ),
            ),
        ),
    ),
)
