-- Each agent's last report. state: left, gone (silent for three intervals), outdated (for two), present.
CREATE OR REPLACE VIEW v_agent ${ON_CLUSTER} AS
SELECT
    *,
    dateDiff('millisecond', at, now64(6, 'UTC')) / 1000 AS silent_s,
    multiIf(leaving, 'left', silent_s > 3 * interval_s, 'gone', silent_s > 2 * interval_s, 'outdated', 'present') AS state
FROM agent FINAL
WHERE (agent, at, incarnation) IN (SELECT agent, max(at), argMax(incarnation, at) FROM agent GROUP BY agent)
