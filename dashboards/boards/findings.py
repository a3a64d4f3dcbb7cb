"""What was found, how often, and which alarms came of it."""

from dashboards.parts import LOSS, ROUNDS, TASK, TASKS, Board, Column, Show

ALARMS = "at >= $__fromTime AND at <= $__toTime"

BOARD = Board(
    uid="kpatrol-findings",
    title="kpatrol / Findings and alarms",
    description="What was found, how often, and which alarms came of it; what changed in the cluster meanwhile.",
    variables=(TASKS,),
    since="now-24h",
    rows=(
        (
            "Alarms",
            (
                Show(
                    kind="table",
                    title="Open alarms",
                    description="Open at this moment, whatever the time range.",
                    sql="SELECT since, task, element, direction, kind, severity, sentence FROM v_alarm "
                    f"WHERE state != 'closed' AND {TASK} ORDER BY since",
                ),
                Show(
                    kind="table",
                    title="Alarms opened and closed",
                    description="Every transition in the range, newest first.",
                    sql="SELECT at, toString(state) AS state, task, element, direction, severity, sentence, alarm_id "
                    f"FROM v_alarm_transition WHERE {ALARMS} AND {TASK} ORDER BY at DESC LIMIT 200",
                ),
            ),
        ),
        (
            "Findings",
            (
                Show(
                    kind="bars",
                    title="Findings by kind",
                    description="How many were stated, round by round.",
                    sql="SELECT toStartOfInterval(round_at, INTERVAL greatest($__interval_s, 60) second) AS time, kind, "
                    f"count() AS findings FROM v_finding WHERE {ROUNDS} AND {TASK} GROUP BY time, kind ORDER BY time",
                ),
                Show(
                    kind="table",
                    title="Elements",
                    description="What was named, in how many rounds, with the loss of all of them together.",
                    sql="SELECT element, direction, kind, count() AS rounds, min(round_at) AS first, max(round_at) AS last, "
                    "sum(loss_lost) / sum(loss_sent) AS loss, wilson_low(sum(loss_lost), sum(loss_sent)) AS at_least FROM v_finding "
                    f"WHERE {ROUNDS} AND {TASK} GROUP BY element, direction, kind ORDER BY rounds DESC LIMIT 50",
                    columns=(
                        Column(name="loss", unit="percentunit", thresholds=LOSS),
                        Column(name="at_least", unit="percentunit"),
                    ),
                ),
                Show(
                    kind="table",
                    title="Findings, newest first",
                    description="A click opens the round.",
                    sql="SELECT round_at AS at, task, round_number AS round, element, direction, kind, sentence, confidence, "
                    f"toString(round_id) AS round_id FROM v_finding WHERE {ROUNDS} AND {TASK} ORDER BY round_at DESC LIMIT 200",
                    wide=24,
                    columns=(
                        Column(name="round", link="kpatrol-round", sends=(("task", "task"), ("round", "round_id"))),
                        Column(name="confidence", unit="percentunit"),
                    ),
                ),
            ),
        ),
        (
            "Changes",
            (
                Show(
                    kind="table",
                    title="Cluster events",
                    description="What changed in the cluster in the range: it may explain a finding.",
                    sql="SELECT at, object, node, reason, message FROM v_event WHERE at >= $__fromTime AND at <= $__toTime "
                    "ORDER BY at DESC LIMIT 200",
                    wide=24,
                ),
            ),
        ),
    ),
)
