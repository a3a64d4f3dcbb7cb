"""The API behind the aggregation layer: ``kubectl get kdoctorreport`` (``system.kdoctor.io/v1beta1``).

Pure: names, document, older_document, target_lines, table, discovery, refusals, selection. Effects: store (ClickHouse's
views, the controller's only door to them), access (Kubernetes' word on who may), certificates, app, serve.
"""
