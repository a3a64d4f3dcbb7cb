-- What was said of each round: one row per revision of its verdict, kept for years. `document` is the record itself.
--
-- The newest revision counts (view v_round). Times are of successful requests: mean_us and the rest from the planned
-- time, sent_mean_us and the rest from the sent time; NULL where none succeeded. loss_* are packets. task_created is when
-- the task was made, the round's own time where that is not known.
-- TTL: ROUND_DAYS days.
CREATE TABLE round ${ON_CLUSTER}
(
    round_id            UInt64                  CODEC(ZSTD(1)),
    round_number        UInt32                  CODEC(Delta(4), ZSTD(1)),
    round_at            DateTime64(3, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    task                LowCardinality(String)  CODEC(ZSTD(1)),
    task_uid            LowCardinality(String)  CODEC(ZSTD(1)),
    kind                LowCardinality(String)  CODEC(ZSTD(1)),
    task_created        DateTime64(3, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    revision            UInt32                  CODEC(ZSTD(1)),
    final               UInt8                   CODEC(ZSTD(1)),
    verdict             LowCardinality(String)  CODEC(ZSTD(1)),
    why                 String                  CODEC(ZSTD(1)),
    planned             UInt64                  CODEC(T64, ZSTD(1)),
    stored              UInt64                  CODEC(T64, ZSTD(1)),
    unsent              UInt64                  CODEC(T64, ZSTD(1)),
    declared_missing    UInt64                  CODEC(T64, ZSTD(1)),
    unexplained         Int64                   CODEC(T64, ZSTD(1)),
    duplicates          UInt64                  CODEC(T64, ZSTD(1)),
    success_rate        Nullable(Float64) CODEC(ZSTD(1)),
    requests_sent       UInt64                  CODEC(T64, ZSTD(1)),
    requests_ok         UInt64                  CODEC(T64, ZSTD(1)),
    requests_failed     UInt64                  CODEC(T64, ZSTD(1)),
    mean_us             Nullable(Float64) CODEC(ZSTD(1)),
    p50_us              Nullable(Float64) CODEC(ZSTD(1)),
    p90_us              Nullable(Float64) CODEC(ZSTD(1)),
    p99_us              Nullable(Float64) CODEC(ZSTD(1)),
    max_us              Nullable(Float64) CODEC(ZSTD(1)),
    sent_mean_us        Nullable(Float64) CODEC(ZSTD(1)),
    sent_p50_us         Nullable(Float64) CODEC(ZSTD(1)),
    sent_p90_us         Nullable(Float64) CODEC(ZSTD(1)),
    sent_p99_us         Nullable(Float64) CODEC(ZSTD(1)),
    sent_max_us         Nullable(Float64) CODEC(ZSTD(1)),
    loss_sent           UInt64                  CODEC(T64, ZSTD(1)),
    loss_lost           UInt64                  CODEC(T64, ZSTD(1)),
    loss_rate           Float64                 CODEC(ZSTD(1)),
    loss_low            Float64                 CODEC(ZSTD(1)),
    loss_high           Float64                 CODEC(ZSTD(1)),
    trust               LowCardinality(String)  CODEC(ZSTD(1)),
    trust_reasons       Array(String)           CODEC(ZSTD(1)),
    verdict_delay_s     Nullable(Float64) CODEC(ZSTD(1)),
    verdict_at          DateTime64(6, 'UTC')    CODEC(Delta(8), ZSTD(1)),
    document            String                  CODEC(ZSTD(3))
)
ENGINE = ${ENGINE}ReplacingMergeTree
PARTITION BY toYYYYMM(round_at)
ORDER BY (task, round_at, round_id, revision)
TTL toDateTime(round_at) + INTERVAL ${ROUND_DAYS} DAY
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000
