-- The very requests that lost a packet, and on which way. came = 1: the serving side has it in its receipts.
-- forward: the client's kernel sent something again and the other side did not have it, or the datagram did not come.
-- reverse: the datagram came and was not answered; the SYN-ACK was sent again; or the server sent an answer again, and
-- this request of that run was as late as only such an answer is (200 ms, the least time of a retransmission).
-- either: the TCP connection never came about. Bound round_at and round_id in WHERE.
CREATE OR REPLACE VIEW v_lost_request ${ON_CLUSTER} AS
SELECT
    p.round_id AS round_id,
    p.round_number AS round_number,
    p.round_at AS round_at,
    p.ts AS ts,
    p.task AS task,
    p.agent AS agent,
    p.seq AS seq,
    p.src_node AS src_node,
    p.dst AS dst,
    p.dst_node AS dst_node,
    p.proto AS proto,
    p.layer AS layer,
    p.size AS size,
    p.src_port AS src_port,
    p.outcome AS outcome,
    p.dur_us AS dur_us,
    p.lost AS lost,
    p.retrans AS retrans,
    r.bit AS came,
    multiIf(
        p.proto = 'udp', if(p.outcome = 'ok', '', if(r.bit = 1, 'reverse', 'forward')),
        p.proto = 'icmp', if(p.lost > 0, 'either', ''),
        p.lost > 0 AND p.outcome = 'timeout' AND p.min_rtt_us = 0, 'either',
        p.lost > 0 AND p.connect_us >= 1000000 AND r.synack_lost > 0, 'reverse',
        p.lost > 0, 'forward',
        r.lost > 0 AND p.dur_us >= 200000, 'reverse',
        ''
    ) AS way,
    p.span_id AS span_id
FROM
(
    SELECT *, span_id
    FROM probe
    WHERE (lost > 0 OR dur_us >= 200000 OR (proto = 'udp' AND outcome = 'timeout'))
      AND outcome NOT IN ('wrong_peer', 'target_gone', 'cancelled', 'unsent')
    LIMIT 1 BY round_id, round_number, round_at, agent, incarnation, seq
) AS p
LEFT JOIN
(
    SELECT round_id, src_agent, proto, seq, max(run_lost) AS lost, max(run_synack_lost) AS synack_lost, 1 AS bit
    FROM
    (
        SELECT
            round_id,
            src_agent,
            proto,
            arrayJoin(receipt_seqs(first_seq, bitmap)) AS seq,
            lost AS run_lost,
            synack_lost AS run_synack_lost
        FROM receipt FINAL
    )
    GROUP BY round_id, src_agent, proto, seq
) AS r ON r.round_id = p.round_id AND r.src_agent = p.agent AND r.proto = p.proto AND r.seq = p.seq
WHERE way != ''
