"""Custom resource definitions, made from the task models of :mod:`controller.tasks`.

``python -m controller.crds FOLDER`` writes them. Everything here is pure: models in, manifests out.
"""
