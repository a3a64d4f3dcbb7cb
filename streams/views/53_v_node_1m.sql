-- How each node has fared, minute by minute: pieces summed. Bound t in WHERE.
CREATE OR REPLACE VIEW v_node_1m ${ON_CLUSTER} AS
SELECT
    t,
    task,
    proto,
    src_node,
    any(live.src_zone) AS src_zone,
    dst_zone,
    sum(live.n) AS n,
    sum(live.n_ok) AS n_ok,
    sum(live.n_lost) AS n_lost,
    sum(live.sent) AS sent,
    sum(live.lost) AS lost,
    if(sent = 0, NULL, lost / sent) AS loss_rate,
    if(n_ok = 0, NULL, sum(live.total_sum) / n_ok) AS mean_us,
    if(n_ok = 0, NULL, min(live.total_min)) AS min_us,
    if(n_ok = 0, NULL, max(live.total_max)) AS max_us,
    sumMap(live.h) AS h,
    hist_quantile(h, 0.5) AS p50_us,
    hist_quantile(h, 0.99) AS p99_us
FROM node_1m AS live
GROUP BY t, task, proto, src_node, dst_zone
