-- What was found in each round: a statement about one element of the network, with its evidence.
--
-- One row per finding and revision of the verdict; loss_* are packets, of pooled_rounds rounds. since and seen_rounds:
-- the unbroken row of rounds it was found in. scope: what of the element is met, spared: what of it is not. TTL: ROUND_DAYS days.
CREATE TABLE finding ${ON_CLUSTER}
(
    round_id      UInt64                  CODEC(ZSTD(1)),
    round_number  UInt32                  CODEC(Delta(4), ZSTD(1)),
    round_at      DateTime64(3, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    task          LowCardinality(String)  CODEC(ZSTD(1)),
    task_uid      LowCardinality(String)  CODEC(ZSTD(1)),
    revision      UInt32                  CODEC(ZSTD(1)),
    element       LowCardinality(String)  CODEC(ZSTD(1)),
    direction     LowCardinality(String)  CODEC(ZSTD(1)),
    kind          LowCardinality(String)  CODEC(ZSTD(1)),
    sentence      String                  CODEC(ZSTD(1)),
    loss_sent     UInt64                  CODEC(T64, ZSTD(1)),
    loss_lost     UInt64                  CODEC(T64, ZSTD(1)),
    loss_rate     Float64                 CODEC(ZSTD(1)),
    loss_low      Float64                 CODEC(ZSTD(1)),
    loss_high     Float64                 CODEC(ZSTD(1)),
    confidence    Float64                 CODEC(ZSTD(1)),
    evidence_sql  String                  CODEC(ZSTD(1)),
    since         DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    seen_rounds   UInt32                  CODEC(ZSTD(1)),
    pooled_rounds UInt16                  CODEC(ZSTD(1)),
    scope         LowCardinality(String)  CODEC(ZSTD(1)),
    spared        Array(String)           CODEC(ZSTD(1))
)
ENGINE = ${ENGINE}ReplacingMergeTree
PARTITION BY toYYYYMM(round_at)
ORDER BY (task, round_at, round_id, revision, element, direction, kind)
TTL toDateTime(round_at) + INTERVAL ${ROUND_DAYS} DAY
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
