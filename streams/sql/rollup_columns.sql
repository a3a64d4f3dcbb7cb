-- What the roll-up tables say of a group of requests `r`, for the roll-up job's queries. The same as node_1m_from_probe.
    count() AS n,
    countIf(r.outcome = 'ok') AS n_ok,
    countIf(r.outcome NOT IN ('ok', 'wrong_peer', 'target_gone', 'cancelled', 'unsent')) AS n_lost,
    toUInt64(sumIf(r.sent, r.outcome NOT IN ('wrong_peer', 'target_gone', 'cancelled', 'unsent'))) AS sent,
    toUInt64(sumIf(r.lost, r.outcome NOT IN ('wrong_peer', 'target_gone', 'cancelled', 'unsent'))) AS lost,
    toUInt64(sumIf(r.total_us, r.outcome = 'ok')) AS total_sum,
    min(if(r.outcome = 'ok', r.total_us, 4294967295)) AS total_min,
    maxIf(r.total_us, r.outcome = 'ok') AS total_max,
    toUInt64(sumIf(r.dur_us, r.outcome = 'ok')) AS dur_sum,
    sumMapIf(map(toUInt8(least(255, floor(log2(greatest(r.total_us, 1)) * 8))), toUInt64(1)), r.outcome = 'ok') AS h
