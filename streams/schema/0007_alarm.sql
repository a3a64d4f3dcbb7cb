-- Every transition of every alarm, in its own words; (alarm_id, transition) is the identity. rounds: how many
-- have shown it since then. TTL: ROUND_DAYS days.
CREATE TABLE alarm ${ON_CLUSTER}
(
    alarm_id    String                  CODEC(ZSTD(1)),
    transition  UInt32                  CODEC(ZSTD(1)),
    state       Enum8('opened' = 1, 'updated' = 2, 'closed' = 3) CODEC(ZSTD(1)),
    at          DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    since       DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    task        LowCardinality(String)  CODEC(ZSTD(1)),
    element     LowCardinality(String)  CODEC(ZSTD(1)),
    direction   LowCardinality(String)  CODEC(ZSTD(1)),
    kind        LowCardinality(String)  CODEC(ZSTD(1)),
    severity    LowCardinality(String)  CODEC(ZSTD(1)),
    sentence    String                  CODEC(ZSTD(1)),
    round_id    UInt64                  CODEC(ZSTD(1)),
    rounds      UInt32                  CODEC(ZSTD(1)),
    scope       LowCardinality(String)  CODEC(ZSTD(1)),
    spared      Array(String)           CODEC(ZSTD(1)),
    evidence_sql String                 CODEC(ZSTD(1))
)
ENGINE = ${ENGINE}ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (at, alarm_id, transition)
TTL toDateTime(at) + INTERVAL ${ROUND_DAYS} DAY
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
