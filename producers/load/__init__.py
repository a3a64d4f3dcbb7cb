"""Load: what is due when (pacing, pure), and the loop that starts it, waits for it and accounts for it (engine).

Belongs here: time, order, limits, the account. Does not belong here: any protocol (producers.probes), Kafka, the spool.
"""
