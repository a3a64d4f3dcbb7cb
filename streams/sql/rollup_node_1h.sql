-- One hour of node_1h from its minutes, of this very version. Parameters: t (the hour), version.
INSERT INTO node_1h (t, task, proto, src_node, src_zone, dst_zone, n, n_ok, n_lost, sent, lost, total_sum, total_min, total_max, dur_sum, h, version)
SELECT
    {t:DateTime('UTC')} AS hour,
    task,
    proto,
    src_node,
    max(r.src_zone),
    dst_zone,
    sum(r.n) AS n,
    sum(r.n_ok) AS n_ok,
    sum(r.n_lost) AS n_lost,
    sum(r.sent) AS sent,
    sum(r.lost) AS lost,
    sum(r.total_sum) AS total_sum,
    min(r.total_min) AS total_min,
    max(r.total_max) AS total_max,
    sum(r.dur_sum) AS dur_sum,
    sumMap(r.h) AS h,
    {version:UInt64} AS version
FROM node_1m_closed AS r
WHERE r.t >= {t:DateTime('UTC')} AND r.t < {t:DateTime('UTC')} + INTERVAL 1 HOUR AND r.version = {version:UInt64}
GROUP BY task, proto, src_node, dst_zone
