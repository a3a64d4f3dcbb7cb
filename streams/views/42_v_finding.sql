-- What was found in each round, by its newest revision.
CREATE OR REPLACE VIEW v_finding ${ON_CLUSTER} AS
SELECT *
FROM finding FINAL
WHERE (round_id, revision) IN (SELECT round_id, max(revision) FROM round GROUP BY round_id)
