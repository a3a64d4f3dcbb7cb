-- Each alarm as it stands now: its last transition.
CREATE OR REPLACE VIEW v_alarm ${ON_CLUSTER} AS
SELECT *
FROM alarm FINAL
WHERE (alarm_id, transition) IN (SELECT alarm_id, max(transition) FROM alarm GROUP BY alarm_id)
