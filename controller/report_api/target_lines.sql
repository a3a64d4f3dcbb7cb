-- One line per agent and target of some rounds, worst first in each, from the single requests; a request stored twice counts once.
SELECT
    round_id,
    agent,
    any(src_node) AS node,
    any(src_pod) AS pod,
    target,
    any(src_dst) AS dst,
    any(address) AS address,
    any(port) AS port,
    toString(proto) AS protocol,
    toString(any(way)) AS layer,
    size,
    countIf(outcome != 'unsent') AS finished,
    countIf(outcome = 'ok') AS ok,
    countIf(outcome = 'unsent') AS unsent,
    mapFilter((code, times) -> times > 0, sumMapIf(map(status, toUInt64(1)), outcome != 'unsent')) AS statuses,
    mapFilter((text, times) -> times > 0, sumMapIf(
        map(if(error_type = '', toString(outcome), concat(toString(outcome), ': ', error_type)), toUInt64(1)),
        outcome NOT IN ('ok', 'unsent')
    )) AS errors,
    sum(resp_bytes) AS bytes,
    toUnixTimestamp64Micro(minIf(ts, outcome != 'unsent')) AS first_us,
    toUnixTimestamp64Micro(maxIf(ts + toIntervalMicrosecond(dur_us), outcome != 'unsent')) AS last_us,
    count() OVER (PARTITION BY round_id, agent) AS agent_targets,
    sum(sent) AS packets_sent,
    sum(lost) AS packets_lost,
    avgIf(dur_us, outcome = 'ok') AS mean_us,
    minIf(dur_us, outcome = 'ok') AS min_us,
    maxIf(dur_us, outcome = 'ok') AS max_us,
    quantilesExactIf(0.5, 0.9, 0.95, 0.99)(dur_us, outcome = 'ok') AS quantiles_us
FROM
(
    SELECT
        round_id, agent, incarnation, seq, src_node, src_pod, target, dst AS src_dst, dst_ip AS address, dst_port AS port, proto,
        layer AS way, size, outcome, error_type, status, resp_bytes, ts, dur_us, sent, lost
    FROM v_probe
    WHERE round_id IN {round_ids:Array(UInt64)}
        AND round_at BETWEEN fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC')
            AND fromUnixTimestamp64Milli({last_ms:Int64}, 'UTC')
        AND ts BETWEEN fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC')
            AND fromUnixTimestamp64Milli({until_ms:Int64}, 'UTC')
        AND ({agent:String} = '' OR agent = {agent:String})
    LIMIT 1 BY round_id, agent, incarnation, seq
)
GROUP BY round_id, agent, target, proto, size
ORDER BY round_id, ok / greatest(finished + unsent, 1), mean_us DESC, agent, target, proto, size
LIMIT {offset:UInt32}, {limit:UInt32} BY round_id
