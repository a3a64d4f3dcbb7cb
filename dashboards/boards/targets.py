"""Names and web targets: the boards DNS and HTTP targets, alike but for what a reply is."""

from dashboards.parts import BY_HOUR, HOURS, TASK, Board, Column, Show, Variable

FAILED = (0.001, 0.01)


def _tasks(condition: str) -> Variable:
    return Variable(
        name="task",
        label="task",
        sql=f"SELECT DISTINCT task FROM v_node_1h WHERE t >= now() - INTERVAL 7 DAY AND {condition} ORDER BY task",
    )


def _shared(condition: str, target: str) -> tuple[Show, ...]:
    here = f"{HOURS} AND {TASK} AND {condition}"
    return (
        Show(
            kind="stat",
            title="Requests answered",
            description="Valid replies, of the requests that one was due for.",
            sql=f"SELECT sum(v.n_ok) / sum(v.n_ok + v.n_lost) AS answered FROM v_node_1h AS v WHERE {here}",
            unit="percentunit",
            wide=8,
            tall=5,
            decimals=3,
        ),
        Show(
            kind="stat",
            title="p50 delay",
            description="Successful requests, from their planned time.",
            sql=f"SELECT hist_quantile(sumMap(v.h), 0.5) AS p50 FROM v_node_1h AS v WHERE {here}",
            unit="µs",
            wide=8,
            tall=5,
        ),
        Show(
            kind="stat",
            title="p99 delay",
            description="Successful requests, from their planned time.",
            sql=f"SELECT hist_quantile(sumMap(v.h), 0.99) AS p99 FROM v_node_1h AS v WHERE {here}",
            unit="µs",
            wide=8,
            tall=5,
        ),
        Show(
            kind="timeseries",
            title=f"Failed requests by {target}",
            description="Share of requests without a valid reply, by hour.",
            sql=f"SELECT {BY_HOUR}, dst, sum(v.n_lost) / sum(v.n_ok + v.n_lost) AS failed FROM v_pair_1h AS v "
            f"WHERE {here} AND n_ok + n_lost > 0 GROUP BY time, dst ORDER BY time",
            unit="percentunit",
        ),
        Show(
            kind="timeseries",
            title=f"p99 delay by {target}",
            description="Successful requests, from their planned time, by hour.",
            sql=f"SELECT {BY_HOUR}, dst, hist_quantile(sumMap(v.h), 0.99) AS p99 FROM v_pair_1h AS v "
            f"WHERE {here} AND n_ok > 0 GROUP BY time, dst ORDER BY time",
            unit="µs",
        ),
        Show(
            kind="table",
            title="By source node",
            description="Who gets no answer: one node only, or all of them?",
            sql="SELECT src_node AS node, sum(v.n) AS requests, sum(v.n_lost) / sum(v.n_ok + v.n_lost) AS failed, "
            "wilson_low(sum(v.n_lost), sum(v.n_ok + v.n_lost)) AS at_least, hist_quantile(sumMap(v.h), 0.99) AS p99 "
            f"FROM v_node_1h AS v WHERE {here} AND n_ok + n_lost > 0 GROUP BY node ORDER BY at_least DESC LIMIT 50",
            columns=(
                Column(name="failed", unit="percentunit", thresholds=FAILED),
                Column(name="at_least", unit="percentunit"),
                Column(name="p99", unit="µs"),
            ),
        ),
    )


# Requests themselves: an hour of them at most, however long the range.
RAW = f"ts >= greatest($__fromTime, $__toTime - INTERVAL 1 HOUR) AND ts <= $__toTime AND {TASK}"
IS_DNS, IS_HTTP = "proto = 'dns'", "proto IN ('http', 'https')"
DNS = Board(
    uid="kpatrol-dns",
    title="kpatrol / DNS",
    description="Are names resolved, by which server, how fast, from where not?",
    variables=(_tasks(IS_DNS),),
    rows=(
        ("Answers", _shared(IS_DNS, "server")),
        (
            "The last hour's requests",
            (
                Show(
                    kind="table",
                    title="Replies by code",
                    description="status is the reply's RCODE (RFC 1035: 0 no error, 2 server failure, 3 no such name, 5 refused).",
                    sql="SELECT dst AS server, toString(outcome) AS outcome, error_type, status AS rcode, count() AS requests "
                    f"FROM v_probe WHERE {RAW} AND {IS_DNS} GROUP BY server, outcome, error_type, rcode ORDER BY requests DESC LIMIT 100",
                ),
                Show(
                    kind="table",
                    title="Requests without a valid reply",
                    description="Newest first.",
                    sql="SELECT ts, src_node AS source, dst AS server, toString(outcome) AS outcome, error_type, status AS rcode, "
                    f"total_us AS took, trace_id, span_id FROM v_probe WHERE {RAW} AND {IS_DNS} AND outcome != 'ok' ORDER BY ts DESC LIMIT 200",
                    wide=24,
                    columns=(Column(name="took", unit="µs"),),
                ),
            ),
        ),
    ),
)
HTTP = Board(
    uid="kpatrol-http",
    title="kpatrol / HTTP targets",
    description="Do HTTP targets answer, how fast, and where does the time go?",
    variables=(_tasks(IS_HTTP),),
    rows=(
        ("Answers", _shared(IS_HTTP, "target")),
        (
            "The last hour's requests",
            (
                Show(
                    kind="table",
                    title="Where the time goes",
                    description="Means of successful requests: name, connection, TLS, first byte (from sending), all of it.",
                    sql="SELECT dst AS target, count() AS requests, avg(dns_us) AS name, avg(connect_us) AS connect, avg(tls_us) AS tls, "
                    f"avg(ttfb_us) AS first_byte, avg(dur_us) AS whole FROM v_probe WHERE {RAW} AND {IS_HTTP} AND outcome = 'ok' "
                    "GROUP BY target ORDER BY whole DESC LIMIT 100",
                    columns=tuple(Column(name=n, unit="µs") for n in ("name", "connect", "tls", "first_byte", "whole")),
                ),
                Show(
                    kind="table",
                    title="Replies by status",
                    description="0: no reply came.",
                    sql="SELECT dst AS target, status, toString(outcome) AS outcome, error_type, count() AS requests FROM v_probe "
                    f"WHERE {RAW} AND {IS_HTTP} GROUP BY target, status, outcome, error_type ORDER BY requests DESC LIMIT 100",
                ),
                Show(
                    kind="table",
                    title="Requests without a valid reply",
                    description="Newest first.",
                    sql="SELECT ts, src_node AS source, dst AS target, toString(outcome) AS outcome, error_type, status, total_us AS took, "
                    f"trace_id, span_id FROM v_probe WHERE {RAW} AND {IS_HTTP} AND outcome != 'ok' ORDER BY ts DESC LIMIT 200",
                    columns=(Column(name="took", unit="µs"),),
                ),
            ),
        ),
    ),
)
