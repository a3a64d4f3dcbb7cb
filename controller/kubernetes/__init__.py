"""Kubernetes as the place of tasks: custom resources in, statuses, events and agents out.

Pure: :mod:`book` (objects → addresses), :mod:`events`, :mod:`conditions`, :mod:`election` (the decisions about a lease),
:mod:`workload` (task → agents of its own). Effects: :mod:`door`, the only way to the API server, and those who hold one.
"""
