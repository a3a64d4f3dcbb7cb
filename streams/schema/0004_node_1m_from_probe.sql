-- Feeds node_1m with every insert into probe. n_lost is request loss: no valid reply, where one was due (somebody else
-- at the address, a target that is gone and a cancelled request are neither success nor loss).
CREATE MATERIALIZED VIEW node_1m_from_probe ${ON_CLUSTER} TO node_1m AS
WITH toUInt32(least(toUInt64(lateness_us) + dur_us, 4294967295)) AS total_us
SELECT
    toStartOfMinute(toDateTime(ts, 'UTC')) AS t,
    task,
    proto,
    src_node,
    dst_zone,
    any(src_zone) AS src_zone,
    count() AS n,
    countIf(outcome = 'ok') AS n_ok,
    countIf(outcome NOT IN ('ok', 'wrong_peer', 'target_gone', 'cancelled', 'unsent')) AS n_lost,
    sumIf(probe.sent, outcome NOT IN ('wrong_peer', 'target_gone', 'cancelled', 'unsent')) AS sent,
    sumIf(probe.lost, outcome NOT IN ('wrong_peer', 'target_gone', 'cancelled', 'unsent')) AS lost,
    sumIf(total_us, outcome = 'ok') AS total_sum,
    min(if(outcome = 'ok', total_us, 4294967295)) AS total_min,
    maxIf(total_us, outcome = 'ok') AS total_max,
    sumIf(dur_us, outcome = 'ok') AS dur_sum,
    sumMapIf(map(toUInt8(least(255, floor(log2(greatest(total_us, 1)) * 8))), toUInt64(1)), outcome = 'ok') AS h,
    now64(3, 'UTC') AS arrived
FROM probe
GROUP BY t, task, proto, src_node, dst_zone
