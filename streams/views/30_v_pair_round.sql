-- The pair table of rounds: one row per round, source agent, target, protocol, layer and size. Bound round_at, and
-- round_id or task, in WHERE. Columns: sql/pair_columns.sql.
CREATE OR REPLACE VIEW v_pair_round ${ON_CLUSTER} AS
SELECT
    round_id,
    round_number,
    round_at,
    task,
    task_uid,
${PAIR_COLUMNS}
FROM
(
    -- Repeats go by identity. What follows from the round stands here too, so that a filter on it reaches the table.
    SELECT *, total_us
    FROM probe
    LIMIT 1 BY round_id, round_number, round_at, task, task_uid, src_node, dst, agent, incarnation, seq
)
GROUP BY round_id, round_number, round_at, task, task_uid, src_agent, src_node, src_zone, src_rack, target, dst, dst_node, dst_zone, dst_rack, proto, layer, size
