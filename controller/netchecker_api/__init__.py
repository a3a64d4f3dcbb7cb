"""netchecker's HTTP API on the controller: who reports, who is absent, who is outdated, and why.

Pure: facts, presence (the verdict), payload (netchecker's JSON), errors (missed reports), exposition (its metrics).
Effects: app. The reports themselves come through agent-reports-v1, so they outlive every process here.
"""
