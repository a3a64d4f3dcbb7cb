-- Each alarm as it stands now: its last transition.
CREATE OR REPLACE VIEW v_alarm ${ON_CLUSTER} AS
SELECT *
FROM alarm FINAL
ORDER BY transition DESC
LIMIT 1 BY alarm_id
