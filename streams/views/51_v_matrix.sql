-- Source × destination of rounds, per protocol and layer. Bound round_at, and round_id or task, in WHERE.
CREATE OR REPLACE VIEW v_matrix ${ON_CLUSTER} AS
SELECT
    round_id,
    round_number,
    round_at,
    task,
    proto,
    layer,
    src_node,
    src_zone,
    dst,
    dst_node,
    dst_zone,
    sum(pair.n) AS n,
    sum(pair.ok) AS ok,
    sum(pair.packets_sent) AS packets_sent,
    sum(pair.packets_lost) AS packets_lost,
    if(packets_sent = 0, NULL, packets_lost / packets_sent) AS loss_rate,
    1 - ok / n AS fail_rate,
    if(ok = 0, NULL, sum(total_us_sum) / ok) AS mean_us,
    sumMap(hist_total) AS h,
    hist_quantile(h, 0.5) AS p50_us,
    hist_quantile(h, 0.99) AS p99_us
FROM v_pair_round AS pair
GROUP BY round_id, round_number, round_at, task, proto, layer, src_node, src_zone, dst, dst_node, dst_zone
