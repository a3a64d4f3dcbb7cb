-- Pairs of rounds with their rates and delays, to be ordered worst first: ORDER BY loss_rate DESC, fail_rate DESC, p99_us
-- DESC. Bound round_at, and round_id or task, in WHERE.
CREATE OR REPLACE VIEW v_worst_pairs ${ON_CLUSTER} AS
SELECT
    round_id,
    round_number,
    round_at,
    task,
    src_agent,
    src_node,
    target,
    dst,
    dst_node,
    proto,
    layer,
    size,
    n,
    ok,
    outcomes,
    packets_sent,
    packets_lost,
    if(packets_sent = 0, NULL, packets_lost / packets_sent) AS loss_rate,
    1 - ok / n AS fail_rate,
    if(ok = 0, NULL, total_us_sum / ok) AS mean_us,
    hist_quantile(hist_total, 0.5) AS p50_us,
    hist_quantile(hist_total, 0.99) AS p99_us,
    if(ok = 0, NULL, total_us_max) AS max_us
FROM v_pair_round
