-- Which periods the roll-up job has written, from what: the job's memory, and what readers are told of its lag.
--
-- `period` is hour (pair_1h, node_1m_closed, node_1h) or day (pair_1d, node_1d). Of every version that was ever given no two
-- are the same, so a row of these tables counts when its version is the newest here of some period. raw_rows and raw_mark are the number of the raw rows
-- and a sum over their Kafka places: while raw says the same, the period is right; when it says otherwise, it is written
-- again. closed = 1: the period was over when it was written. The highest version counts. TTL: YEAR_DAYS days.
CREATE TABLE rolled ${ON_CLUSTER}
(
    period    LowCardinality(String)  CODEC(ZSTD(1)),
    t         DateTime('UTC')         CODEC(Delta(4), ZSTD(1)),
    closed    UInt8                   CODEC(ZSTD(1)),
    raw_rows  UInt64                  CODEC(T64, ZSTD(1)),
    raw_mark  UInt64                  CODEC(ZSTD(1)),
    took_ms   UInt32                  CODEC(T64, ZSTD(1)),
    at        DateTime64(3, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    version   UInt64                  CODEC(ZSTD(1))
)
ENGINE = ${ENGINE}ReplacingMergeTree(version)
PARTITION BY toYear(t)
ORDER BY (period, t)
TTL t + INTERVAL ${YEAR_DAYS} DAY
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
