"""Grafana dashboards as code: `python -m dashboards` writes json/ and provisioning/. Reads views only."""
