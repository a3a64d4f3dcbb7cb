-- Which hours and days the roll-up job has written, when, and from how many raw rows (repeats too).
CREATE OR REPLACE VIEW v_rolled ${ON_CLUSTER} AS
SELECT period, t, closed, raw_rows, took_ms, at, version FROM rolled FINAL
