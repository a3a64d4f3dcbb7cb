-- Some rounds of a made-up full mesh (bench/seed.py). Everything follows from hashes, so the same rounds are the same rows.
INSERT INTO probe
(
    round_id, round_number, round_at, ts, cluster, task, task_uid, proto, layer, src_node, src_zone, src_rack, src_pod, agent,
    incarnation, batch_seq, seq, target, dst, dst_node, dst_zone, dst_rack, peer, src_ip, dst_ip, src_port, dst_port, family,
    outcome, error_type, status, lateness_us, dur_us, connect_us, ttfb_us, sent, lost, segs_out, segs_in, retrans,
    min_rtt_us, req_bytes, resp_bytes, trace_id, kpart, koff
)
SELECT
    cityHash64('{task}', round_s),
    {first} + round + 1,
    toDateTime64(round_s, 3, 'UTC'),
    fromUnixTimestamp64Micro(toInt64(round_s) * 1000000 + (cityHash64(pair, proto) % {interval_ms}) * 1000, 'UTC'),
    'bench',
    '{task}',
    'bench',
    proto,
    '{layer}',
    src_node,
    concat('zone-', toString(src % {zones} + 1)),
    concat('rack-', toString(intDiv(src, 10))),
    concat('agent-', toString(src)),
    src_node,
    1,
    intDiv(n, 500),
    n,
    concat(proto, '-', dst_node),
    dst_node,
    dst_node,
    concat('zone-', toString(dst % {zones} + 1)),
    concat('rack-', toString(intDiv(dst, 10))),
    if(ok, dst_node, ''),
    toIPv6(IPv4NumToString(toUInt32(167772160 + src))),
    toIPv6(IPv4NumToString(toUInt32(167772160 + dst))),
    if(proto = 'icmp', 0, 40000 + pair % 20000),
    multiIf(proto = 'http', 80, proto = 'https', 443, proto = 'dns', 53, proto = 'icmp', 0, 862),
    'ipv4',
    if(ok, 'ok', 'timeout'),
    if(ok, '', 'timeout'),
    if(proto IN ('http', 'https') AND ok, 200, 0),
    late,
    dur,
    if(stream, toUInt32(dur * 0.3), 0),
    if(proto IN ('http', 'https') AND ok, toUInt32(dur * 0.9), 0),
    packets,
    gone,
    if(stream, packets, 0),
    if(stream, packets - 1, 0),
    if(stream, gone, 0),
    if(stream, toUInt32(base), 0),
    64,
    if(ok, 64, 0),
    unhex(hex(MD5(concat(src_node, toString(round_s))))),
    src % 12,
    {salt} * 1000000000 + (round_s - {origin_s}) * 1000 + intDiv(n, 500)
FROM
(
    SELECT
        *,
        proto IN ('tcp', 'http', 'https') AS stream,
        toUInt32({packets}[p + 1]) AS packets,
        toUInt32(u1 < {share} * packets) AS gone,
        NOT (gone > 0 AND (NOT stream OR u4 < 0.1)) AS ok,
        if(src % {zones} = dst % {zones}, 120 + pair % 80, 600 + pair % 900) AS base,
        base * exp(0.2 * (u2 + u3 + u4 - 1.5)) + if(u4 < 0.01, 5000 * u2, 0) + if(gone > 0, 200000, 0) AS took,
        if(ok, toUInt32(took), toUInt32(1000000)) AS dur,
        toUInt32(60 * u3) AS late
    FROM
    (
        SELECT
            intDiv(number, {round_rows}) AS round,
            {start_s} + toUInt32(round * {interval_s}) AS round_s,
            number % {round_rows} AS in_round,
            toUInt32(intDiv(in_round, {source_rows})) AS src,
            toUInt32(in_round % {source_rows}) AS n,
            n % {kinds} AS p,
            {protocols}[p + 1] AS proto,
            (src + 1 + intDiv(n, {kinds})) % {nodes} AS dst,
            src * {nodes} + dst AS pair,
            concat('node-', leftPad(toString(src), 4, '0'), '.eu-central.compute.internal') AS src_node,
            concat('node-', leftPad(toString(dst), 4, '0'), '.eu-central.compute.internal') AS dst_node,
            cityHash64(pair, proto, round_s, {salt}, 1) / 18446744073709551616 AS u1,
            cityHash64(pair, proto, round_s, {salt}, 2) / 18446744073709551616 AS u2,
            cityHash64(pair, proto, round_s, {salt}, 3) / 18446744073709551616 AS u3,
            cityHash64(pair, proto, round_s, {salt}, 4) / 18446744073709551616 AS u4
        FROM numbers({rows})
    )
)
SETTINGS {settings}, insert_deduplication_token = '{token}', max_block_size = 65536
