-- What changed in the cluster.
CREATE OR REPLACE VIEW v_event ${ON_CLUSTER} AS
SELECT * FROM event FINAL
