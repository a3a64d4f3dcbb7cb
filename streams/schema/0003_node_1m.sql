-- How each node has fared, minute by minute, towards each zone: live panels and alert queries.
--
-- Filled by node_1m_from_probe. Additive, so a repeated row counts twice here until the roll-up job's rows (node_1m_closed)
-- take the place of a closed hour; verdicts never read it. arrived: when the last of a row's requests was inserted, by the
-- server's clock; the roll-up job looks here for hours that late data has reached. total_* and h are of successful requests, from the planned time. h is a histogram:
-- bucket floor(8 * log2(us)), OpenTelemetry's exponential scale 3; mergeable with sumMap. total_min is 4294967295 where
-- none succeeded. Rows of one minute come in several pieces until merged: sum them.
-- TTL: RAW_DAYS days, as long as the roll-up job can still take a period from raw.
CREATE TABLE node_1m ${ON_CLUSTER}
(
    t          DateTime('UTC')         CODEC(Delta(4), ZSTD(1)),
    task       LowCardinality(String)  CODEC(ZSTD(1)),
    proto      Enum8('icmp' = 1, 'udp' = 2, 'tcp' = 3, 'http' = 4, 'https' = 5, 'dns' = 6) CODEC(ZSTD(1)),
    src_node   LowCardinality(String)  CODEC(ZSTD(1)),
    dst_zone   LowCardinality(String)  CODEC(ZSTD(1)),
    src_zone   SimpleAggregateFunction(any, LowCardinality(String)) CODEC(ZSTD(1)),
    n          SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    n_ok       SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    n_lost     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    sent       SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    lost       SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    total_sum  SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    total_min  SimpleAggregateFunction(min, UInt32) CODEC(T64, ZSTD(1)),
    total_max  SimpleAggregateFunction(max, UInt32) CODEC(T64, ZSTD(1)),
    dur_sum    SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    h          SimpleAggregateFunction(sumMap, Map(UInt8, UInt64)) CODEC(ZSTD(1)),
    arrived    SimpleAggregateFunction(max, DateTime64(3, 'UTC')) CODEC(Delta(8), ZSTD(1))
)
ENGINE = ${ENGINE}AggregatingMergeTree
PARTITION BY toDate(t)
ORDER BY (toStartOfHour(t), proto, task, src_node, dst_zone, t)
TTL t + INTERVAL ${RAW_DAYS} DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
