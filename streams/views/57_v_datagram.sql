-- What datagrams met on the way, per round, source, target and size. Of UDP to our own agents the replies tell: lost on
-- the way there or back (as far as a later reply has told; the rest is lost_unknown, and v_loss_direction knows more),
-- overtaken (RFC 4737), doubled. extra_replies are copies of replies, and replies after their time. pdv_* is the delay
-- variation of RFC 5481 (delay less the least delay of the stream), which needs no common clock. ICMP has the round trip
-- only. Bound round_at in WHERE.
CREATE OR REPLACE VIEW v_datagram ${ON_CLUSTER} AS
SELECT
    round_id,
    round_number,
    round_at,
    task,
    agent AS src_agent,
    src_node,
    dst,
    dst_node,
    proto,
    layer,
    family,
    size,
    count() AS requests,
    toUInt64(sum(sent)) AS sent,
    countIf(outcome = 'ok') AS answered,
    countIf(outcome = 'timeout' AND error_type = 'request_lost') AS lost_there,
    countIf(outcome = 'timeout' AND error_type = 'reply_lost') AS lost_back,
    countIf(outcome = 'timeout') - lost_there - lost_back AS lost_unknown,
    countIf(proto = 'udp' AND outcome = 'ok' AND bitTest(status, 0)) AS reordered_there,
    countIf(proto = 'udp' AND outcome = 'ok' AND bitTest(status, 1)) AS reordered_back,
    countIf(proto = 'udp' AND outcome = 'ok' AND bitTest(status, 2)) AS duplicated_there,
    toInt64(sum(segs_in)) - toInt64(countIf(resp_bytes > 0)) AS extra_replies,
    countIf(error_type = 'message_too_long') AS too_long,
    maxIf(status, error_type = 'message_too_long') AS path_mtu,
    minIf(dur_us, outcome = 'ok') AS rtt_min_us,
    toUInt64(quantileExactIf(0.99)(dur_us, outcome = 'ok')) - rtt_min_us AS pdv_p99_us,
    if(countIf(there_us > 0) = 0, 0, quantileExactIf(0.99)(there_us, there_us > 0) - minIf(there_us, there_us > 0)) AS pdv_there_p99_us,
    if(countIf(there_us > 0) = 0, 0, quantileExactIf(0.99)(min_rtt_us - there_us, there_us > 0) - minIf(min_rtt_us - there_us, there_us > 0)) AS pdv_back_p99_us
FROM
(
    SELECT *
    FROM probe
    WHERE proto IN ('udp', 'icmp')
    LIMIT 1 BY round_id, round_number, round_at, task, agent, incarnation, seq
)
GROUP BY round_id, round_number, round_at, task, src_agent, src_node, dst, dst_node, proto, layer, family, size
