-- How each node has fared towards each zone, hour by hour, for years.
--
-- One row per period, written by the roll-up job; writing a period again with a higher version replaces it, so the job
-- may be run any number of times. Columns as in node_1m. What counts is
-- the version that `rolled` names; others merge away. It is cheaper to ask for that than FINAL, and an unfinished write is
-- never seen. TTL: YEAR_DAYS days.
CREATE TABLE node_1h ${ON_CLUSTER}
(
    t          DateTime('UTC')         CODEC(Delta(4), ZSTD(1)),
    task       LowCardinality(String)  CODEC(ZSTD(1)),
    proto      Enum8('icmp' = 1, 'udp' = 2, 'tcp' = 3, 'http' = 4, 'https' = 5, 'dns' = 6) CODEC(ZSTD(1)),
    src_node   LowCardinality(String)  CODEC(ZSTD(1)),
    src_zone   LowCardinality(String)  CODEC(ZSTD(1)),
    dst_zone   LowCardinality(String)  CODEC(ZSTD(1)),
    n          UInt64 CODEC(T64, ZSTD(1)),
    n_ok       UInt64 CODEC(T64, ZSTD(1)),
    n_lost     UInt64 CODEC(T64, ZSTD(1)),
    sent       UInt64 CODEC(T64, ZSTD(1)),
    lost       UInt64 CODEC(T64, ZSTD(1)),
    total_sum  UInt64 CODEC(T64, ZSTD(1)),
    total_min  UInt32 CODEC(T64, ZSTD(1)),
    total_max  UInt32 CODEC(T64, ZSTD(1)),
    dur_sum    UInt64 CODEC(T64, ZSTD(1)),
    h          Map(UInt8, UInt64) CODEC(ZSTD(1)),
    version    UInt64                  CODEC(ZSTD(1))
)
ENGINE = ${ENGINE}ReplacingMergeTree(version)
PARTITION BY toYYYYMM(t)
ORDER BY (toDate(t), proto, task, src_node, dst_zone, t)
TTL t + INTERVAL ${YEAR_DAYS} DAY
SETTINGS index_granularity = 1024, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
