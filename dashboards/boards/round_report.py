"""One round: what was said of it, every request accounted for, where packets were lost."""

from dashboards.parts import LOSS, TASK, Board, Column, Show, Variable

ID = "round_id = toUInt64('${round}')"
# The tables are ordered by time: without its start a round is looked for everywhere.
AT = f"round_at = (SELECT max(round_at) FROM v_round WHERE {ID})"
HERE = f"{AT} AND {ID}"

BOARD = Board(
    uid="kpatrol-round",
    title="kpatrol / Round",
    description="One round: verdict, completeness, pairs, directions of loss, failing requests.",
    variables=(
        Variable(
            name="task",
            label="task",
            sql="SELECT DISTINCT task FROM v_round WHERE round_at >= now() - INTERVAL 30 DAY ORDER BY task",
        ),
        Variable(
            name="round",
            label="round",
            sql="SELECT toString(round_id) AS value, concat(task, ' #', toString(round_number), ' ', "
            "formatDateTime(round_at, '%F %T'), ' ', verdict) AS text FROM v_round "
            f"WHERE round_at >= now() - INTERVAL 30 DAY AND {TASK} ORDER BY round_at DESC LIMIT 500",
            multi=False,
        ),
    ),
    refresh="",
    annotated=False,
    rows=(
        (
            "What was said",
            (
                Show(
                    kind="table",
                    title="Verdict",
                    description="Every revision of the verdict; the highest counts.",
                    sql="SELECT revision, final, verdict, why, trust, verdict_delay_s FROM v_round_revision "
                    f"WHERE {HERE} ORDER BY revision DESC",
                    columns=(Column(name="verdict_delay_s", unit="s"),),
                    wide=24,
                    tall=5,
                ),
                Show(
                    kind="table",
                    title="Every request accounted for",
                    description="planned = stored + unsent + missing + unexplained; unexplained must be 0.",
                    sql="SELECT planned, stored, unsent, declared_missing AS missing, unexplained, duplicates AS twice, success_rate, "
                    f"loss_sent AS packets, loss_lost AS lost, loss_rate FROM v_round WHERE {HERE}",
                    columns=(
                        Column(name="unexplained", thresholds=(1, 1)),
                        Column(name="success_rate", unit="percentunit"),
                        Column(name="loss_rate", unit="percentunit", thresholds=LOSS),
                    ),
                    wide=24,
                    tall=5,
                ),
                Show(
                    kind="table",
                    title="Findings",
                    description="What was found, with its interval and how sure it is.",
                    sql="SELECT element, direction, kind, sentence, loss_rate, loss_low, loss_high, confidence "
                    f"FROM v_finding WHERE {HERE} ORDER BY confidence DESC",
                    wide=24,
                    columns=(
                        Column(name="loss_rate", unit="percentunit", thresholds=LOSS),
                        Column(name="loss_low", unit="percentunit"),
                        Column(name="loss_high", unit="percentunit"),
                        Column(name="confidence", unit="percentunit"),
                    ),
                ),
            ),
        ),
        (
            "Pairs",
            (
                Show(
                    kind="table",
                    title="Worst pairs",
                    description="By loss, failures and p99. A click shows the pair over time.",
                    sql="SELECT src_node AS source, dst AS destination, proto AS protocol, layer, size, n AS requests, "
                    "fail_rate AS failed, loss_rate AS loss, p50_us AS p50, p99_us AS p99 FROM v_worst_pairs "
                    f"WHERE {HERE} ORDER BY loss DESC, failed DESC, p99 DESC LIMIT 30",
                    columns=(
                        Column(name="source", link="kpatrol-pair", sends=(("src", "source"), ("dst", "destination"))),
                        Column(name="failed", unit="percentunit"),
                        Column(name="loss", unit="percentunit", thresholds=LOSS),
                        Column(name="p50", unit="µs"),
                        Column(name="p99", unit="µs"),
                    ),
                ),
                Show(
                    kind="table",
                    title="Loss there and back",
                    description="From both ends' counts where they are there (both_ends = 1).",
                    sql="SELECT src_node AS source, dst AS destination, proto AS protocol, forward_lost AS there, reverse_lost AS back, "
                    "open_lost AS either, forward_rate AS rate_there, reverse_rate AS rate_back, both_ends FROM v_loss_direction "
                    f"WHERE {HERE} ORDER BY there + back + either DESC LIMIT 30",
                    columns=(
                        Column(name="rate_there", unit="percentunit", thresholds=LOSS),
                        Column(name="rate_back", unit="percentunit", thresholds=LOSS),
                    ),
                ),
                Show(
                    kind="table",
                    title="Failing requests",
                    description="trace_id and span_id open a request in a trace tool.",
                    sql="SELECT ts, src_node AS source, dst AS destination, toString(proto) AS protocol, toString(outcome) AS outcome, "
                    f"error_type, status, total_us AS took, trace_id, span_id FROM v_probe WHERE {HERE} AND outcome != 'ok' "
                    "ORDER BY ts LIMIT 200",
                    wide=24,
                    columns=(Column(name="took", unit="µs"),),
                ),
            ),
        ),
    ),
)
