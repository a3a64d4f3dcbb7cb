"""What people and scripts read: reports of rounds as tables, matrices and JSON. Reads ClickHouse's views only."""
