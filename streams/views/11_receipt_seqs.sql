-- The requests that a receipt stands for: bit i of bitmap (byte i/8, bit i%8) is request first_seq + i.
CREATE OR REPLACE FUNCTION receipt_seqs ${ON_CLUSTER} AS (first_seq, bitmap) -> arrayMap(
    i -> toUInt32(first_seq + i),
    arrayFilter(
        i -> bitTest(reinterpretAsUInt8(substring(bitmap, intDiv(i, 8) + 1, 1)), i % 8),
        range(length(bitmap) * 8)
    )
)
