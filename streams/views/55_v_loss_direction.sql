-- Packets lost on the way there and on the way back, per source and destination node, protocol, layer and size. TCP and
-- HTTP: the way there from the client's kernel (less SYNs sent again because the SYN-ACK was lost), the way back from the
-- server's; datagrams: there = sent - received, back = received - answered. both_ends = 0: receipts do not cover all
-- pairs; what is missing of them is in forward alone. open: lost on either way (connections that never came about).
-- Bound round_at and round_id in WHERE.
CREATE OR REPLACE VIEW v_loss_direction ${ON_CLUSTER} AS
SELECT
    round_id,
    round_number,
    round_at,
    task,
    src_node,
    dst,
    dst_node,
    proto,
    layer,
    size,
    min(known) AS both_ends,
    sum(way.n) AS requests,
    sum(way.ok) AS ok,
    sum(way.received) AS received,
    sum(way.there) AS forward_sent,
    sum(way.lost_there) AS forward_lost,
    sum(way.back) AS reverse_sent,
    sum(way.lost_back) AS reverse_lost,
    sum(way.either) AS open_sent,
    sum(way.lost_either) AS open_lost,
    if(forward_sent = 0, NULL, forward_lost / forward_sent) AS forward_rate,
    if(reverse_sent = 0, NULL, reverse_lost / reverse_sent) AS reverse_rate
FROM
(
    SELECT
        p.round_id AS round_id,
        p.round_number AS round_number,
        p.round_at AS round_at,
        p.task AS task,
        p.src_node AS src_node,
        p.dst AS dst,
        p.dst_node AS dst_node,
        p.proto AS proto,
        p.layer AS layer,
        p.size AS size,
        p.n AS n,
        p.ok AS ok,
        s.received AS received,
        s.received > 0 AND s.received >= p.ok AND s.missing = 0 AS known,
        known AND p.proto != 'udp' AS tcp,
        known AND p.proto = 'udp' AS udp,
        toInt64(p.packets_sent) AS packets,
        least(s.received, packets) AS came,
        if(tcp, toInt64(p.unopened_sent), 0) AS either,
        if(tcp, toInt64(p.unopened_lost), 0) AS lost_either,
        packets - either AS there,
        if(udp, packets - came, greatest(toInt64(p.packets_lost) - lost_either - if(tcp, s.synack_lost, 0), 0)) AS lost_there,
        if(udp, came, if(tcp, s.sent, 0)) AS back,
        if(udp, greatest(came - toInt64(p.ok), 0), if(tcp, greatest(least(s.lost, s.sent), 0), 0)) AS lost_back
    FROM v_pair_round AS p
    LEFT JOIN v_served AS s ON s.round_id = p.round_id AND s.round_at = p.round_at AND s.src_agent = p.src_agent
        AND s.target = p.target AND s.dst = p.dst AND s.dst_node = p.dst_node AND s.proto = p.proto AND s.layer = p.layer
        AND s.size = p.size
) AS way
GROUP BY round_id, round_number, round_at, task, src_node, dst, dst_node, proto, layer, size
