-- What was said of each round last: its newest revision.
CREATE OR REPLACE VIEW v_round ${ON_CLUSTER} AS
SELECT *
FROM round FINAL
WHERE (round_id, revision) IN (SELECT round_id, max(revision) FROM round GROUP BY round_id)
