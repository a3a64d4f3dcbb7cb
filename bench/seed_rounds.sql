-- A verdict for every stored round (bench/seed.py).
INSERT INTO round (round_id, round_number, round_at, task, task_uid, kind, revision, final, verdict, why, planned,
    stored, requests_sent, requests_ok, requests_failed, success_rate, mean_us, p50_us, p90_us, p99_us, max_us,
    loss_sent, loss_lost, loss_rate, loss_low, loss_high, trust, verdict_delay_s)
SELECT round_id, any(round_number), any(round_at), any(task), 'u', 'NetPatrol', 1, 1,
    if(sum(p.lost) > 3, 'fail', 'succeed'), 'why', count(), count(), count(), countIf(outcome = 'ok'),
    countIf(outcome != 'ok'), countIf(outcome = 'ok') / count(), avg(total_us), quantile(0.5)(total_us),
    quantile(0.9)(total_us), quantile(0.99)(total_us), max(total_us), sum(p.sent), sum(p.lost),
    sum(p.lost) / sum(p.sent), 0, 1, 'good', 0.4
FROM probe AS p GROUP BY round_id
