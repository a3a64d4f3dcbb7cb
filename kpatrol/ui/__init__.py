"""The page: a mesh heat map, pairs over time, rounds, findings, alarms and agents in a browser. Reads views only."""
