-- The minutes of one hour of node_1m_closed from raw. Parameters: t (the hour), version, chunks, chunk.
INSERT INTO node_1m_closed (t, task, proto, src_node, src_zone, dst_zone, n, n_ok, n_lost, sent, lost, total_sum, total_min, total_max, dur_sum, h, version)
SELECT
    toStartOfMinute(toDateTime(r.ts, 'UTC')) AS minute,
    task,
    proto,
    src_node,
    max(r.src_zone),
    dst_zone,
${ROLLUP_COLUMNS},
    {version:UInt64} AS version
FROM
(
    -- Repeats go by identity, as everywhere. The chunks are of source nodes, so a line is never split; they bound memory.
    SELECT *, total_us
    FROM probe
    WHERE ts >= {t:DateTime('UTC')} AND ts < {t:DateTime('UTC')} + INTERVAL 1 HOUR
      AND round_at >= {t:DateTime('UTC')} - INTERVAL 2 DAY AND round_at < {t:DateTime('UTC')} + INTERVAL 1 HOUR
      AND cityHash64(src_node) % {chunks:UInt32} = {chunk:UInt32}
    LIMIT 1 BY round_id, agent, incarnation, seq
) AS r
GROUP BY minute, task, proto, src_node, dst_zone
