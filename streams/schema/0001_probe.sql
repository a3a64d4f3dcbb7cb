-- What happened to each single request: one row per request, kept for days.
--
-- Identity of a row: (round_id, agent, incarnation, seq); batch_seq follows from seq. It ends the sort key, so a
-- repeated row (a zombie sink's) merges away; verdicts count each identity once. An agent restarted in a round counts its
-- seq anew, and two agents may sit on one node (pod and host flavour), hence agent and incarnation.
--
-- The key begins with the hour, so "the last hour" reads one hour, then goes by pair. Always bound ts, or round_at by
-- which the table is partitioned: round_at is the same for all rows of a round and of a repeated batch, so a repeat
-- always meets its original in one partition, and one Kafka record never spans two partitions.
-- kpart and koff say which Kafka record a row came from; the sink reads them back when it takes over a partition. That
-- is a scan of these two columns alone (3 M rows in 4 to 6 ms), and can be bound by round_at. Measured against it:
-- a projection by (kpart, koff) answers in 3 ms whatever the size but takes a fifth of the insert rate, and a minmax
-- index on koff is slower than the scan, because each granule holds records of all partitions.
-- TTL: RAW_DAYS days after the round.
CREATE TABLE probe ${ON_CLUSTER}
(
    round_id      UInt64                                      CODEC(Delta(8), ZSTD(1)),
    round_number  UInt32                                      CODEC(Delta(4), ZSTD(1)),
    round_at      DateTime64(3, 'UTC')                        CODEC(Delta(8), ZSTD(1)),
    ts            DateTime64(6, 'UTC')                        CODEC(Delta(8), ZSTD(1)),
    cluster       LowCardinality(String)                      CODEC(ZSTD(1)),
    task          LowCardinality(String)                      CODEC(ZSTD(1)),
    task_uid      LowCardinality(String)                      CODEC(ZSTD(1)),
    proto         Enum8('icmp' = 1, 'udp' = 2, 'tcp' = 3, 'http' = 4, 'https' = 5, 'dns' = 6) CODEC(ZSTD(1)),
    layer         Enum8('pod' = 1, 'host' = 2, 'cluster_ip' = 3, 'node_port' = 4, 'load_balancer' = 5, 'ingress' = 6, 'multus' = 7, 'dns' = 8, 'url' = 9) CODEC(ZSTD(1)),
    src_node      LowCardinality(String)                      CODEC(ZSTD(1)),
    src_zone      LowCardinality(String)                      CODEC(ZSTD(1)),
    src_rack      LowCardinality(String)                      CODEC(ZSTD(1)),
    src_pod       LowCardinality(String)                      CODEC(ZSTD(1)),
    agent         LowCardinality(String)                      CODEC(ZSTD(1)),
    incarnation   UInt64                                      CODEC(Delta(8), ZSTD(1)),
    batch_seq     UInt32                                      CODEC(Delta(4), ZSTD(1)),
    seq           UInt32                                      CODEC(Delta(4), ZSTD(1)),
    target        LowCardinality(String)                      CODEC(ZSTD(1)),
    dst           LowCardinality(String)                      CODEC(ZSTD(1)),
    dst_node      LowCardinality(String)                      CODEC(ZSTD(1)),
    dst_zone      LowCardinality(String)                      CODEC(ZSTD(1)),
    dst_rack      LowCardinality(String)                      CODEC(ZSTD(1)),
    peer          LowCardinality(String)                      CODEC(ZSTD(1)),
    src_ip        IPv6                                        CODEC(ZSTD(1)),
    dst_ip        IPv6                                        CODEC(ZSTD(1)),
    src_port      UInt16                                      CODEC(ZSTD(1)),
    dst_port      UInt16                                      CODEC(ZSTD(1)),
    family        Enum8('ipv4' = 4, 'ipv6' = 6)               CODEC(ZSTD(1)),
    outcome       Enum8('ok' = 1, 'timeout' = 2, 'refused' = 3, 'reset' = 4, 'unreachable' = 5, 'dns_error' = 6, 'tls_error' = 7, 'http_error' = 8, 'bad_reply' = 9, 'wrong_peer' = 10, 'target_gone' = 11, 'cancelled' = 12, 'unsent' = 13) CODEC(ZSTD(1)),
    error_type    LowCardinality(String)                      CODEC(ZSTD(1)),
    status        UInt16                                      CODEC(ZSTD(1)),
    lateness_us   UInt32                                      CODEC(T64, ZSTD(1)),
    dur_us        UInt32                                      CODEC(T64, ZSTD(1)),
    -- From the planned time; computed, not stored (1.3 B/row saved). Not in *: say SELECT *, total_us.
    total_us      UInt32 ALIAS toUInt32(least(toUInt64(lateness_us) + dur_us, 4294967295)),
    dns_us        UInt32                                      CODEC(T64, ZSTD(1)),
    connect_us    UInt32                                      CODEC(T64, ZSTD(1)),
    tls_us        UInt32                                      CODEC(T64, ZSTD(1)),
    ttfb_us       UInt32                                      CODEC(T64, ZSTD(1)),
    sent          UInt32                                      CODEC(T64, ZSTD(1)),
    lost          UInt32                                      CODEC(T64, ZSTD(1)),
    segs_out      UInt32                                      CODEC(T64, ZSTD(1)),
    segs_in       UInt32                                      CODEC(T64, ZSTD(1)),
    retrans       UInt32                                      CODEC(T64, ZSTD(1)),
    min_rtt_us    UInt32                                      CODEC(T64, ZSTD(1)),
    req_bytes     UInt32                                      CODEC(T64, ZSTD(1)),
    resp_bytes    UInt32                                      CODEC(T64, ZSTD(1)),
    size          UInt16                                      CODEC(ZSTD(1)),
    attempt       UInt8                                       CODEC(ZSTD(1)),
    there_us      UInt32                                      CODEC(T64, ZSTD(1)),
    trace_id      FixedString(16)                             CODEC(ZSTD(1)),
    -- splitmix64(low half of trace_id, big endian, + seq) in 16 hex digits: computed, not stored (8 B/row saved).
    span_id       String ALIAS lower(leftPad(hex(
                      arrayMap(z -> bitXor(z, bitShiftRight(z, 31)),
                      arrayMap(z -> bitXor(z, bitShiftRight(z, 27)) * toUInt64(0x94D049BB133111EB),
                      arrayMap(z -> bitXor(z, bitShiftRight(z, 30)) * toUInt64(0xBF58476D1CE4E5B9),
                      [reinterpretAsUInt64(reverse(substring(trace_id, 9, 8))) + seq + toUInt64(0x9E3779B97F4A7C15)]
                      )))[1]), 16, '0')),
    kpart         UInt16                                      CODEC(ZSTD(1)),
    koff          UInt64                                      CODEC(Delta(8), ZSTD(1)),
    attrs         Map(LowCardinality(String), String)         CODEC(ZSTD(1)),
    -- A round is asked for by round_at, which is not in the key: of a day this leaves its hour.
    INDEX by_round_at round_at TYPE minmax GRANULARITY 4
)
ENGINE = ${ENGINE}ReplacingMergeTree
PARTITION BY toDate(round_at)
PRIMARY KEY (toStartOfHour(ts), proto, task, src_node, dst, ts)
ORDER BY (toStartOfHour(ts), proto, task, src_node, dst, ts, round_id, agent, incarnation, seq)
TTL toDateTime(round_at) + INTERVAL ${RAW_DAYS} DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
