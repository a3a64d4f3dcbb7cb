-- What raw has of some hours: rows (repeats too) and a sum over the rows' Kafka places. Another sum or number: something
-- came, or repeats were merged. Parameters: hours, first and last of them.
SELECT toStartOfHour(ts) AS t, count() AS raw_rows, sum(cityHash64(kpart, koff)) AS raw_mark
FROM probe
WHERE ts >= {first:DateTime('UTC')} AND ts < {last:DateTime('UTC')} + INTERVAL 1 HOUR
  AND round_at >= {first:DateTime('UTC')} - INTERVAL 2 DAY AND round_at < {last:DateTime('UTC')} + INTERVAL 1 HOUR
  AND (empty({hours:Array(DateTime('UTC'))}) OR has({hours:Array(DateTime('UTC'))}, toStartOfHour(ts)))
GROUP BY t
ORDER BY t
