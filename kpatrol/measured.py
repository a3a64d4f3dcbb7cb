"""Measured constants that `kpatrol plan` calculates with, each with where it was measured. One place; change it here.

All on two shared cores of a server CPU of 2020, made-up but realistically shaped data (bench/), one machine.
"""

# bench/sink.py's records, zstd: a batch is a head that names its targets, and rows.
BATCH_HEAD_BYTES = 1130
BATCH_TARGET_BYTES = 8.6
BATCH_ROW_BYTES = 14.5
BATCH_ROWS = 500
BATCH_AGE_S = 5
# bench/receipts.py: 5 to 10 % of the results' bytes.
RECEIPT_SHARE = 0.10
# bench/storage.py: bytes on disk per row, after merges, of 24 h of a 100-node mesh with four protocols.
DISK_BYTES = {
    "probe": 3.9,
    "node_1m_closed": 13.4,
    "pair_1h": 15.3,
    "node_1h": 17.8,
    "pair_1d": 14.5,
    "node_1d": 33.0,
}
# Real networks are less tidy than made-up ones.
DISK_MARGIN = 2.0
# bench/sink.py: 0.81 to 0.86 µs of the sink's CPU a row; 160,000 rows/s with the engine on the same two cores.
SINK_CPU_US = 0.9
STORE_CPU_US = 12.0
# bench/storage.py: two passes over raw, each request once.
ROLLUP_CPU_US = 2.5
# bench/judging.py: 100,000 pairs; with the query of the pair table.
JUDGE_CPU_US_PER_PAIR = 10.0
# bench/engine.py: an agent's own CPU for a recorded keep-alive HTTP request, and as much again to answer one.
REQUEST_CPU_US = 15.0
SERVE_CPU_US = 15.0
