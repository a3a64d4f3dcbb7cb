-- What the serving side received: one row per run of requests of one source, the other end's account of the same packets.
--
-- Bit i of bitmap (byte i/8, bit i%8) stands for request first_seq + i of src_agent. Joined with probe by the request's
-- identity (round_id, src_agent = agent, seq), never by address; last_seq is a request of the same source and target, so a
-- row without a bitmap can be joined, too. TCP's counters are growth since the row before: sum them (lost may be negative
-- where a report came late). Ordered by time first, like probe; identity follows.
-- TTL: RAW_DAYS days.
CREATE TABLE receipt ${ON_CLUSTER}
(
    round_id     UInt64                  CODEC(Delta(8), ZSTD(1)),
    agent        LowCardinality(String)  CODEC(ZSTD(1)),
    incarnation  UInt64                  CODEC(Delta(8), ZSTD(1)),
    batch_seq    UInt32                  CODEC(Delta(4), ZSTD(1)),
    node         LowCardinality(String)  CODEC(ZSTD(1)),
    zone         LowCardinality(String)  CODEC(ZSTD(1)),
    rack         LowCardinality(String)  CODEC(ZSTD(1)),
    src_agent    LowCardinality(String)  CODEC(ZSTD(1)),
    proto        Enum8('icmp' = 1, 'udp' = 2, 'tcp' = 3, 'http' = 4, 'https' = 5, 'dns' = 6) CODEC(ZSTD(1)),
    first_ts     DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    last_ts      DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    target       UInt16                  CODEC(ZSTD(1)),
    first_seq    UInt32                  CODEC(Delta(4), ZSTD(1)),
    last_seq     UInt32                  CODEC(Delta(4), ZSTD(1)),
    received     UInt32                  CODEC(T64, ZSTD(1)),
    duplicates   UInt32                  CODEC(T64, ZSTD(1)),
    reordered    UInt32                  CODEC(T64, ZSTD(1)),
    accepted     UInt32                  CODEC(T64, ZSTD(1)),
    sent         UInt32                  CODEC(T64, ZSTD(1)),
    lost         Int32                   CODEC(T64, ZSTD(1)),
    synack_lost  UInt32                  CODEC(T64, ZSTD(1)),
    segs_in      UInt32                  CODEC(T64, ZSTD(1)),
    segs_out     UInt32                  CODEC(T64, ZSTD(1)),
    retrans      UInt32                  CODEC(T64, ZSTD(1)),
    bitmap       String                  CODEC(ZSTD(1)),
    kpart        UInt16                  CODEC(ZSTD(1)),
    koff         UInt64                  CODEC(Delta(8), ZSTD(1))
)
ENGINE = ${ENGINE}ReplacingMergeTree
PARTITION BY toDate(first_ts)
PRIMARY KEY (toStartOfHour(first_ts), round_id, agent)
ORDER BY (toStartOfHour(first_ts), round_id, agent, incarnation, src_agent, proto, target, first_seq, batch_seq)
TTL toDateTime(first_ts) + INTERVAL ${RAW_DAYS} DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
