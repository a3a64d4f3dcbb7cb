-- What changed in the cluster: node, agent, rollout and service changes that explain findings and annotate graphs.
--
-- TTL: ROUND_DAYS days.
CREATE TABLE event ${ON_CLUSTER}
(
    at       DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    object   LowCardinality(String)  CODEC(ZSTD(1)),
    node     LowCardinality(String)  CODEC(ZSTD(1)),
    reason   LowCardinality(String)  CODEC(ZSTD(1)),
    message  String                  CODEC(ZSTD(1))
)
ENGINE = ${ENGINE}ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (at, object, reason)
TTL toDateTime(at) + INTERVAL ${ROUND_DAYS} DAY
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
