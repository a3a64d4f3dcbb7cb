-- What was said of each round last: its newest revision.
CREATE OR REPLACE VIEW v_round ${ON_CLUSTER} AS
SELECT *
FROM round FINAL
ORDER BY revision DESC
LIMIT 1 BY round_id
