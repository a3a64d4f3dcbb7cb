"""Kubernetes as the place of tasks: custom resources in, statuses and events out.

Pure: :mod:`book` (objects → addresses), :mod:`events`, :mod:`conditions`, :mod:`election` (decisions about a lease).
Effects: :mod:`door`, the only way to the API server, and those who hold one.
"""
