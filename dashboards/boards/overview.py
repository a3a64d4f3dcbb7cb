"""Is the network well? What needs attention now?"""

from dashboards.parts import BY_MINUTE, CHOSEN, LOSS, MINUTES, PROTOCOLS, ROUNDS, TASK, TASKS, Board, Column, Show

ROUND = Column(name="round", link="kpatrol-round", sends=(("task", "task"), ("round", "round_id")))
BOARD = Board(
    uid="kpatrol-overview",
    title="kpatrol / Overview",
    description="Is the network well, and what needs attention now? Loss, delay and verdicts of all tasks.",
    variables=(TASKS, PROTOCOLS),
    rows=(
        (
            "Now",
            (
                Show(
                    kind="stat",
                    title="Rounds that met the expectation",
                    description="Share of rounds whose last verdict is `succeed`; unknown is never counted as good.",
                    sql=f"SELECT countIf(verdict = 'succeed') / count() AS share FROM v_round WHERE {ROUNDS} AND {TASK}",
                    unit="percentunit",
                    wide=4,
                    tall=5,
                ),
                Show(
                    kind="stat",
                    title="Packet loss",
                    description="Lost of sent packets (TCP: segments sent again), both ways together.",
                    sql=f"SELECT sum(v.lost) / sum(v.sent) AS loss FROM v_node_1m AS v WHERE {MINUTES} AND {CHOSEN}",
                    unit="percentunit",
                    wide=4,
                    tall=5,
                    thresholds=LOSS,
                ),
                Show(
                    kind="stat",
                    title="Requests answered",
                    description="Valid replies, of the requests that one was due for.",
                    sql="SELECT sum(v.n_ok) / sum(v.n_ok + v.n_lost) AS answered FROM v_node_1m AS v "
                    f"WHERE {MINUTES} AND {CHOSEN}",
                    unit="percentunit",
                    wide=4,
                    tall=5,
                ),
                Show(
                    kind="stat",
                    title="p99 delay",
                    description="Of successful requests, from their planned time.",
                    sql="SELECT hist_quantile(sumMap(v.h), 0.99) AS p99 FROM v_node_1h AS v WHERE "
                    f"t >= toStartOfHour($__fromTime) AND t <= $__toTime AND {CHOSEN}",
                    unit="µs",
                    wide=4,
                    tall=5,
                ),
                Show(
                    kind="stat",
                    title="Open alarms",
                    description="Alarms that are open at this moment, whatever the time range.",
                    sql=f"SELECT countIf(state != 'closed') AS alarms FROM v_alarm WHERE {TASK}",
                    wide=4,
                    tall=5,
                    thresholds=(1, 1),
                ),
                Show(
                    kind="stat",
                    title="Silent agents",
                    description="Agents that should report and do not (three intervals missed), at this moment.",
                    sql="SELECT countIf(state = 'gone') AS agents FROM v_agent",
                    wide=4,
                    tall=5,
                    thresholds=(1, 1),
                ),
            ),
        ),
        (
            "Course",
            (
                Show(
                    kind="timeseries",
                    title="Packet loss by task",
                    description="Lost of sent packets.",
                    sql=f"SELECT {BY_MINUTE}, task, sum(v.lost) / sum(v.sent) AS loss FROM v_node_1m AS v "
                    f"WHERE {MINUTES} AND {CHOSEN} AND sent > 0 GROUP BY time, task ORDER BY time",
                    unit="percentunit",
                ),
                Show(
                    kind="timeseries",
                    title="p99 delay by protocol",
                    description="Of successful requests, from their planned time; by hour.",
                    sql="SELECT toStartOfInterval(t, INTERVAL greatest($__interval_s, 3600) second) AS time, "
                    "toString(proto) AS protocol, hist_quantile(sumMap(v.h), 0.99) AS p99 FROM v_node_1h AS v "
                    f"WHERE t >= toStartOfHour($__fromTime) AND t <= $__toTime AND {CHOSEN} AND n_ok > 0 "
                    "GROUP BY time, protocol ORDER BY time",
                    unit="µs",
                ),
                Show(
                    kind="timeseries",
                    title="Requests per second",
                    description="Requests recorded, by protocol.",
                    sql=f"SELECT {BY_MINUTE}, toString(proto) AS protocol, sum(v.n) / greatest($__interval_s, 60) AS requests "
                    f"FROM v_node_1m AS v WHERE {MINUTES} AND {CHOSEN} GROUP BY time, protocol ORDER BY time",
                    unit="reqps",
                ),
                Show(
                    kind="bars",
                    title="Verdicts",
                    description="Rounds by their last verdict.",
                    sql="SELECT toStartOfInterval(round_at, INTERVAL greatest($__interval_s, 60) second) AS time, verdict, "
                    f"count() AS rounds FROM v_round WHERE {ROUNDS} AND {TASK} GROUP BY time, verdict ORDER BY time",
                ),
            ),
        ),
        (
            "What to look at",
            (
                Show(
                    kind="table",
                    title="Open alarms",
                    description="Open at this moment, oldest first.",
                    sql="SELECT since, task, element, direction, severity, sentence FROM v_alarm "
                    f"WHERE state != 'closed' AND {TASK} ORDER BY since",
                    columns=(Column(name="element", link="kpatrol-findings"),),
                ),
                Show(
                    kind="table",
                    title="Source nodes by loss",
                    description="Ordered by the lower end of the 95 % interval. A click shows the node's row of the mesh.",
                    sql="SELECT src_node AS node, sum(v.lost) / sum(v.sent) AS loss, wilson_low(sum(v.lost), sum(v.sent)) AS at_least, "
                    "wilson_high(sum(v.lost), sum(v.sent)) AS at_most, sum(v.sent) AS packets FROM v_node_1m AS v "
                    f"WHERE {MINUTES} AND {CHOSEN} AND sent > 0 GROUP BY node ORDER BY at_least DESC LIMIT 15",
                    columns=(
                        Column(name="node", link="kpatrol-mesh", sends=(("node", "node"),)),
                        Column(name="loss", unit="percentunit", thresholds=LOSS),
                        Column(name="at_least", unit="percentunit"),
                        Column(name="at_most", unit="percentunit"),
                    ),
                ),
                Show(
                    kind="table",
                    title="Rounds that failed or cannot be told",
                    description="Newest first; a click opens the round's report.",
                    sql="SELECT round_at AS at, task, round_number AS round, verdict, why, toString(round_id) AS round_id "
                    f"FROM v_round WHERE {ROUNDS} AND {TASK} AND verdict != 'succeed' ORDER BY round_at DESC LIMIT 50",
                    wide=24,
                    columns=(ROUND,),
                ),
            ),
        ),
    ),
)
