-- Who reported when, and how it was: the agents' heartbeats (netchecker's question). `document` is the record itself.
--
-- Time first: "who is here now" reads the last hour. TTL: AGENT_DAYS days.
CREATE TABLE agent ${ON_CLUSTER}
(
    at               DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    agent            LowCardinality(String)  CODEC(ZSTD(1)),
    incarnation      UInt64                  CODEC(Delta(8), ZSTD(1)),
    node             LowCardinality(String)  CODEC(ZSTD(1)),
    agent_group      LowCardinality(String)  CODEC(ZSTD(1)),
    flavour          LowCardinality(String)  CODEC(ZSTD(1)),
    zone             LowCardinality(String)  CODEC(ZSTD(1)),
    rack             LowCardinality(String)  CODEC(ZSTD(1)),
    pod              LowCardinality(String)  CODEC(ZSTD(1)),
    version          LowCardinality(String)  CODEC(ZSTD(1)),
    started          DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    interval_s       Float32                 CODEC(ZSTD(1)),
    ipv4             LowCardinality(String)  CODEC(ZSTD(1)),
    ipv6             LowCardinality(String)  CODEC(ZSTD(1)),
    clock_offset_us  Nullable(Int64)         CODEC(ZSTD(1)),
    spool_bytes      UInt64                  CODEC(T64, ZSTD(1)),
    spool_batches    UInt32                  CODEC(T64, ZSTD(1)),
    running_rounds   UInt16                  CODEC(ZSTD(1)),
    leaving          UInt8                   CODEC(ZSTD(1)),
    document         String                  CODEC(ZSTD(3))
)
ENGINE = ${ENGINE}ReplacingMergeTree
PARTITION BY toDate(at)
ORDER BY (toStartOfHour(at), agent, at, incarnation)
TTL toDateTime(at) + INTERVAL ${AGENT_DAYS} DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
