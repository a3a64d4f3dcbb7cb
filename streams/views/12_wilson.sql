-- Wilson's 95 % interval of a rate, lower end: between which rates the true one lies when k of n were seen (score interval,
-- Wilson 1927). NULL when n is 0.
CREATE OR REPLACE FUNCTION wilson_low ${ON_CLUSTER} AS (k, n) -> if(
    n = 0,
    NULL,
    greatest(0, (k / n + 1.9207295 / n - 1.9599640 * sqrt(greatest(0, k / n * (1 - k / n) / n + 0.9603647 / n / n))) / (1 + 3.8414588 / n))
)
