-- What the serving side counted in one round, by the lines of the pair table; the other end's account of the same
-- requests, joined by their identity. Parameters: round_id, round_at_ms, until_ms as for the pair table. Receipts have
-- the serving node's clock: an hour either way is looked at. A receipt of another node than the one asked counts not.
-- Where a request does not say its target (datagrams), each is looked up by its bit; `missing` counts requests that were
-- answered and yet have none.
WITH
    mine AS
    (
        SELECT *
        FROM receipt
        WHERE round_id = {round_id:UInt64}
          AND first_ts >= fromUnixTimestamp64Milli({round_at_ms:Int64} - 3600000, 'UTC')
          AND first_ts <= fromUnixTimestamp64Milli({until_ms:Int64} + 3600000, 'UTC')
        LIMIT 1 BY agent, incarnation, batch_seq, src_agent, proto, target, first_seq
    ),
    asked AS
    (
        SELECT agent, seq, target AS place, dst, dst_node, proto, layer, size, outcome
        FROM probe
        WHERE round_id = {round_id:UInt64}
          AND round_at = fromUnixTimestamp64Milli({round_at_ms:Int64}, 'UTC')
          AND ts >= fromUnixTimestamp64Milli({round_at_ms:Int64}, 'UTC')
          AND ts <= fromUnixTimestamp64Milli({until_ms:Int64}, 'UTC')
    )
SELECT
    a.agent AS src_agent,
    a.place AS target,
    a.dst AS dst,
    a.dst_node AS dst_node,
    toString(a.proto) AS proto,
    toString(a.layer) AS layer,
    a.size AS size,
    toInt64(sum(r.received - r.duplicates)) AS received,
    toInt64(sum(r.sent)) AS sent,
    toInt64(sum(r.lost)) AS lost,
    toInt64(sum(r.synack_lost)) AS synack_lost,
    toInt64(0) AS missing
FROM mine AS r
INNER JOIN
(
    SELECT *
    FROM asked
    WHERE (agent, seq) IN (SELECT src_agent, last_seq FROM mine)
    LIMIT 1 BY agent, seq
) AS a ON r.src_agent = a.agent AND r.last_seq = a.seq AND r.proto = a.proto
WHERE r.target != 65535 AND (a.dst_node = '' OR a.dst_node = r.node)
GROUP BY src_agent, target, dst, dst_node, proto, layer, size
UNION ALL
SELECT
    a.agent AS src_agent,
    a.place AS target,
    a.dst AS dst,
    a.dst_node AS dst_node,
    toString(a.proto) AS proto,
    toString(a.layer) AS layer,
    a.size AS size,
    toInt64(sum(r.came)) AS received,
    toInt64(0) AS sent,
    toInt64(0) AS lost,
    toInt64(0) AS synack_lost,
    toInt64(countIf(a.outcome = 'ok' AND r.came = 0)) AS missing
FROM
(
    SELECT *
    FROM asked
    WHERE proto = 'udp' AND outcome NOT IN ('wrong_peer', 'target_gone', 'cancelled', 'unsent')
    LIMIT 1 BY agent, seq
) AS a
LEFT JOIN
(
    SELECT DISTINCT src_agent, node, arrayJoin(receipt_seqs(first_seq, bitmap)) AS seq, 1 AS came
    FROM mine
    WHERE target = 65535 AND proto = 'udp'
) AS r ON r.src_agent = a.agent AND r.seq = a.seq AND (r.node = a.dst_node OR a.dst_node = '')
WHERE a.agent IN (SELECT src_agent FROM mine WHERE target = 65535)
GROUP BY src_agent, target, dst, dst_node, proto, layer, size
