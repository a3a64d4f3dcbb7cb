-- Wilson's 95 % interval of a rate, upper end; see wilson_low.
CREATE OR REPLACE FUNCTION wilson_high ${ON_CLUSTER} AS (k, n) -> if(
    n = 0,
    NULL,
    least(1, (k / n + 1.9207295 / n + 1.9599640 * sqrt(greatest(0, k / n * (1 - k / n) / n + 0.9603647 / n / n))) / (1 + 3.8414588 / n))
)
