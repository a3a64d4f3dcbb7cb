-- Which batches of some rounds are stored. Bounded by round_at (the partition) and ts (the sort key's first part), which
-- is never before the round's start.
SELECT round_id, agent, incarnation, batch_seq
FROM probe
WHERE round_id IN {rounds:Array(UInt64)}
  AND round_at BETWEEN fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC') AND fromUnixTimestamp64Milli({last_ms:Int64}, 'UTC')
  AND ts >= fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC')
GROUP BY round_id, agent, incarnation, batch_seq
