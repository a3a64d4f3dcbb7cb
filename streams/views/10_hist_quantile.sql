-- Quantile q of a histogram h (scale 3: bucket floor(8 * log2(us))), interpolated geometrically inside its bucket, in
-- the unit that was put in; NULL when h is empty. Off by less than half a bucket (5 %), mostly under 1 %.
CREATE OR REPLACE FUNCTION hist_quantile ${ON_CLUSTER} AS (h, q) -> if(
    empty(h),
    NULL,
    arrayMap(
        (bucket, below, count) -> exp2((bucket + 1 - (below - q * arraySum(mapValues(h))) / count) / 8),
        arrayFilter((k, c) -> c >= q * arraySum(mapValues(h)), mapKeys(h), arrayCumSum(mapValues(h))),
        arrayFilter(c -> c >= q * arraySum(mapValues(h)), arrayCumSum(mapValues(h))),
        arrayFilter((n, c) -> c >= q * arraySum(mapValues(h)), mapValues(h), arrayCumSum(mapValues(h)))
    )[1]
)
