-- How each node has fared towards each zone, minute by minute. Hours that the roll-up job has closed have each request
-- once, and one row a minute as they are; later ones are live, pieces summed. Bound t in WHERE. n_ok + n_lost are the
-- requests that a valid reply was due for.
CREATE OR REPLACE VIEW v_node_1m ${ON_CLUSTER} AS
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
FROM
(
    SELECT
        t, task, proto, src_node, max(live.src_zone) AS src_zone, dst_zone, sum(live.n) AS n, sum(live.n_ok) AS n_ok,
        sum(live.n_lost) AS n_lost, sum(live.sent) AS sent, sum(live.lost) AS lost, sum(live.total_sum) AS total_sum,
        min(live.total_min) AS total_min, max(live.total_max) AS total_max, sumMap(live.h) AS h
    FROM node_1m AS live
    WHERE toStartOfHour(t) NOT IN (SELECT t FROM rolled FINAL WHERE period = 'hour' AND closed = 1)
    GROUP BY t, task, proto, src_node, dst_zone
    UNION ALL
    SELECT t, task, proto, src_node, src_zone, dst_zone, n, n_ok, n_lost, sent, lost, total_sum, total_min, total_max, h
    FROM node_1m_closed
    WHERE version IN (SELECT version FROM rolled FINAL WHERE period = 'hour' AND closed = 1)
)
