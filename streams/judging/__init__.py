"""Judging a round: pure functions of the round, the agents' accounts and the pair table.

Belongs here: statistics, the pair table, the verdict, trust in the instrument, the place of a loss. Nothing here
reads a clock, Kafka or ClickHouse; `kpatrol check` uses the same code without any of them.
"""
