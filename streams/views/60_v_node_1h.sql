-- How each node has fared towards each zone, hour by hour, for years; as of the roll-up job's last pass. Bound t in WHERE.
-- Add up n, n_ok, n_lost, sent, lost and h (sumMap) over several rows, never rates or quantiles.
CREATE OR REPLACE VIEW v_node_1h ${ON_CLUSTER} AS
SELECT
    t,
    task,
    proto,
    src_node,
    src_zone,
    dst_zone,
    n,
    n_ok,
    n_lost,
    sent,
    lost,
    total_sum,
    h,
    if(sent = 0, NULL, lost / sent) AS loss_rate,
    if(n_ok + n_lost = 0, NULL, n_ok / (n_ok + n_lost)) AS availability,
    if(n_ok = 0, NULL, total_sum / n_ok) AS mean_us,
    if(n_ok = 0, NULL, total_min) AS min_us,
    if(n_ok = 0, NULL, total_max) AS max_us,
    hist_quantile(h, 0.5) AS p50_us,
    hist_quantile(h, 0.9) AS p90_us,
    hist_quantile(h, 0.99) AS p99_us
FROM node_1h
WHERE version IN (SELECT version FROM rolled FINAL WHERE period = 'hour')
