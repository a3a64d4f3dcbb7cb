-- The pair table of one round, as the judge reads it. Parameters: round_id, round_at_ms (the scheduled start), until_ms
-- (nothing of the round was planned to be sent later). round_rows counts repeats too: round_rows - sum(n) rows are stored
-- twice and not merged yet.
SELECT
${PAIR_COLUMNS},
    (
        SELECT count()
        FROM probe
        WHERE round_id = {round_id:UInt64}
          AND round_at = fromUnixTimestamp64Milli({round_at_ms:Int64}, 'UTC')
          AND ts >= fromUnixTimestamp64Milli({round_at_ms:Int64}, 'UTC')
          AND ts <= fromUnixTimestamp64Milli({until_ms:Int64}, 'UTC')
    ) AS round_rows
FROM
(
    -- Repeats go by the identity within the round: four times quicker than FINAL, which would merge the whole hour.
    SELECT *, total_us
    FROM probe
    WHERE round_id = {round_id:UInt64}
      AND round_at = fromUnixTimestamp64Milli({round_at_ms:Int64}, 'UTC')
      AND ts >= fromUnixTimestamp64Milli({round_at_ms:Int64}, 'UTC')
      AND ts <= fromUnixTimestamp64Milli({until_ms:Int64}, 'UTC')
    LIMIT 1 BY agent, incarnation, seq
)
GROUP BY src_agent, src_node, src_zone, src_rack, target, dst, dst_node, dst_zone, dst_rack, proto, layer, size
ORDER BY src_agent, src_node, src_zone, src_rack, target, dst, dst_node, dst_zone, dst_rack, proto, layer, size
