-- Every transition of every alarm.
CREATE OR REPLACE VIEW v_alarm_transition ${ON_CLUSTER} AS
SELECT * FROM alarm FINAL
