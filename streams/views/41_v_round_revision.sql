-- Everything that was ever said of each round, revision by revision.
CREATE OR REPLACE VIEW v_round_revision ${ON_CLUSTER} AS
SELECT * FROM round FINAL
