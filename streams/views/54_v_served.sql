-- What the serving side counted, by the lines of the pair table (for the judge: sql/served.sql, where the meaning is told).
-- Joined by the request's identity, never by address. Bound round_at and round_id in WHERE.
CREATE OR REPLACE VIEW v_served ${ON_CLUSTER} AS
SELECT
    round_id,
    round_at,
    src_agent,
    target,
    dst,
    dst_node,
    proto,
    layer,
    size,
    sum(came) AS received,
    sum(segments) AS sent,
    sum(segments_lost) AS lost,
    sum(synacks_lost) AS synack_lost,
    sum(without) AS missing
FROM
(
    SELECT
        a.round_id AS round_id,
        a.round_at AS round_at,
        a.agent AS src_agent,
        a.target AS target,
        a.dst AS dst,
        a.dst_node AS dst_node,
        toString(a.proto) AS proto,
        toString(a.layer) AS layer,
        a.size AS size,
        toInt64(r.received - r.duplicates) AS came,
        toInt64(r.sent) AS segments,
        toInt64(r.lost) AS segments_lost,
        toInt64(r.synack_lost) AS synacks_lost,
        toInt64(0) AS without
    FROM
    (
        SELECT round_id, round_at, agent, seq, target, dst, dst_node, proto, layer, size
        FROM probe
        LIMIT 1 BY round_id, round_at, agent, seq
    ) AS a
    INNER JOIN
    (
        SELECT * FROM receipt FINAL WHERE target != 65535
    ) AS r ON r.round_id = a.round_id AND r.src_agent = a.agent AND r.last_seq = a.seq AND r.proto = a.proto
    WHERE a.dst_node = '' OR a.dst_node = r.node
    UNION ALL
    SELECT
        a.round_id AS round_id,
        a.round_at AS round_at,
        a.agent AS src_agent,
        a.target AS target,
        a.dst AS dst,
        a.dst_node AS dst_node,
        toString(a.proto) AS proto,
        toString(a.layer) AS layer,
        a.size AS size,
        toInt64(r.bit) AS came,
        toInt64(0) AS segments,
        toInt64(0) AS segments_lost,
        toInt64(0) AS synacks_lost,
        toInt64(a.outcome = 'ok' AND r.bit = 0) AS without
    FROM
    (
        SELECT round_id, round_at, agent, seq, target, dst, dst_node, proto, layer, size, outcome
        FROM probe
        WHERE proto = 'udp' AND outcome NOT IN ('wrong_peer', 'target_gone', 'cancelled', 'unsent')
        LIMIT 1 BY round_id, round_at, agent, seq
    ) AS a
    LEFT JOIN
    (
        SELECT DISTINCT round_id, src_agent, node, arrayJoin(receipt_seqs(first_seq, bitmap)) AS seq, 1 AS bit
        FROM receipt
        WHERE target = 65535 AND proto = 'udp'
    ) AS r ON r.round_id = a.round_id AND r.src_agent = a.agent AND r.seq = a.seq
    WHERE r.bit = 0 OR a.dst_node = '' OR a.dst_node = r.node
)
GROUP BY round_id, round_at, src_agent, target, dst, dst_node, proto, layer, size
