-- How every pair has fared, minute by minute, from the requests themselves: for hours, while raw is kept. Each request once.
-- Bound t in WHERE, and a pair where you can.
CREATE OR REPLACE VIEW v_pair_1m ${ON_CLUSTER} AS
SELECT
    t,
    task,
    proto,
    layer,
    src_node,
    max(r.src_zone) AS src_zone,
    dst,
    max(r.dst_node) AS dst_node,
    max(r.dst_zone) AS dst_zone,
    size,
${ROLLUP_COLUMNS},
    if(sent = 0, NULL, lost / sent) AS loss_rate,
    if(n_ok + n_lost = 0, NULL, n_ok / (n_ok + n_lost)) AS availability,
    if(n_ok = 0, NULL, total_sum / n_ok) AS mean_us,
    if(n_ok = 0, NULL, total_min) AS min_us,
    if(n_ok = 0, NULL, total_max) AS max_us,
    hist_quantile(h, 0.5) AS p50_us,
    hist_quantile(h, 0.9) AS p90_us,
    hist_quantile(h, 0.99) AS p99_us
FROM
(
    SELECT *, total_us, toStartOfMinute(toDateTime(ts, 'UTC')) AS t
    FROM probe
    LIMIT 1 BY t, task, proto, layer, src_node, dst, size, round_id, agent, incarnation, seq
) AS r
GROUP BY t, task, proto, layer, src_node, dst, size
