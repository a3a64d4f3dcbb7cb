"""Is the instrument itself well? Rows, completeness, delay of verdicts, trust, agents, roll-ups."""

from dashboards.parts import BY_MINUTE, MINUTES, ROUNDS, TASK, TASKS, Board, Column, Show

BY_ROUND = "toStartOfInterval(round_at, INTERVAL greatest($__interval_s, 60) second) AS time"
HERE = f"FROM v_round WHERE {ROUNDS} AND {TASK}"

BOARD = Board(
    uid="kpatrol-pipeline",
    title="kpatrol / Pipeline health",
    description="Is the instrument itself well? Nothing here is about the network under test.",
    variables=(TASKS,),
    rows=(
        (
            "Now",
            (
                Show(
                    kind="stat",
                    title="Unexplained requests",
                    description="Planned, not stored, and nobody said why. Must be 0.",
                    sql=f"SELECT sum(unexplained) AS unexplained {HERE}",
                    wide=6,
                    tall=5,
                    thresholds=(1, 1),
                ),
                Show(
                    kind="stat",
                    title="Rounds with a degraded instrument",
                    description="Rounds whose trust is not good: agents late, throttled, starved.",
                    sql=f"SELECT countIf(trust != 'good') AS rounds {HERE}",
                    wide=6,
                    tall=5,
                    thresholds=(1, 1),
                ),
                Show(
                    kind="stat",
                    title="Newest requests",
                    description="How long ago the last stored request was sent; years: none in the last hour.",
                    sql="SELECT dateDiff('second', max(t), now()) AS age FROM v_node_1m WHERE t >= now() - INTERVAL 1 HOUR",
                    unit="s",
                    wide=6,
                    tall=5,
                    thresholds=(300, 900),
                ),
                Show(
                    kind="stat",
                    title="Roll-ups behind",
                    description="How long ago the roll-up job wrote last.",
                    sql="SELECT dateDiff('second', max(at), now64(3)) AS behind FROM v_rolled",
                    unit="s",
                    wide=6,
                    tall=5,
                    thresholds=(1800, 7200),
                ),
            ),
        ),
        (
            "Course",
            (
                Show(
                    kind="timeseries",
                    title="Rows stored per second",
                    description="By the time requests were sent.",
                    sql=f"SELECT {BY_MINUTE}, task, sum(v.n) / greatest($__interval_s, 60) AS rows FROM v_node_1m AS v "
                    f"WHERE {MINUTES} AND {TASK} GROUP BY time, task ORDER BY time",
                    unit="wps",
                ),
                Show(
                    kind="bars",
                    title="Requests that are not stored",
                    description="Not sent, missing with a declared cause, unexplained (must be 0).",
                    sql=f"SELECT {BY_ROUND}, sum(unsent) AS not_sent, sum(declared_missing) AS missing, "
                    f"sum(greatest(unexplained, 0)) AS nobody_knows {HERE} GROUP BY time ORDER BY time",
                ),
                Show(
                    kind="timeseries",
                    title="Delay of verdicts",
                    description="From the last agent's account to the verdict.",
                    sql=f"SELECT {BY_ROUND}, task, max(verdict_delay_s) AS delay {HERE} AND verdict_delay_s IS NOT NULL "
                    "GROUP BY time, task ORDER BY time",
                    unit="s",
                ),
                Show(
                    kind="bars",
                    title="Trust",
                    description="Rounds by how fit the instrument was.",
                    sql=f"SELECT {BY_ROUND}, trust, count() AS rounds {HERE} GROUP BY time, trust ORDER BY time",
                ),
            ),
        ),
        (
            "Agents and roll-ups",
            (
                Show(
                    kind="table",
                    title="Agents",
                    description="Each agent's last report; gone: three intervals missed.",
                    sql="SELECT state, node, agent, version, silent_s, clock_offset_us, spool_bytes, spool_batches, running_rounds "
                    "FROM v_agent ORDER BY state != 'gone', state != 'outdated', node LIMIT 1000",
                    columns=(
                        Column(name="silent_s", unit="s"),
                        Column(name="clock_offset_us", unit="µs"),
                        Column(name="spool_bytes", unit="decbytes"),
                    ),
                ),
                Show(
                    kind="table",
                    title="Roll-ups",
                    description="Hours and days written last: when, from how many rows, how long it took.",
                    sql="SELECT t, period, closed, raw_rows, took_ms, at FROM v_rolled ORDER BY at DESC LIMIT 50",
                    columns=(Column(name="took_ms", unit="ms"),),
                ),
                Show(
                    kind="table",
                    title="Rounds whose instrument was not fit",
                    description="Why: the judge's reasons.",
                    sql="SELECT round_at AS at, task, round_number AS round, trust, arrayStringConcat(trust_reasons, '; ') AS reasons, "
                    f"toString(round_id) AS round_id {HERE} AND trust != 'good' ORDER BY round_at DESC LIMIT 100",
                    wide=24,
                    columns=(
                        Column(name="round", link="kpatrol-round", sends=(("task", "task"), ("round", "round_id"))),
                    ),
                ),
            ),
        ),
    ),
)
