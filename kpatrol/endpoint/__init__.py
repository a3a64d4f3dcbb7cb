"""A ClickHouse-compatible HTTP endpoint over the embedded engine: same wire, same SQL, one process owns the data.

Belongs here: the HTTP interface of ClickHouse as its clients use it, the two accounts, and the refusal of every
statement that would reach outside the data folder. Does not belong here: tables, migrations, anything that knows
what a round is.

The engine has no accounts and few limits of its own, and a statement can read any local file (even one that only
reads, by `file()`), write one (`INTO OUTFILE`) or make the folder unusable (`ENGINE = Kafka`). Therefore every
statement passes `sql_guard` before it reaches the engine, for the writer as well as for the reader.
"""
