-- What the serving side received. Bound first_ts in WHERE.
CREATE OR REPLACE VIEW v_receipt ${ON_CLUSTER} AS
SELECT * FROM receipt FINAL
