"""Ceilings of request.qps that an installation sets: an admission policy, whose figures stand in a ConfigMap.

The policy is the same everywhere and belongs to the definitions; ConfigMap and binding belong to an installation.
A figure that is missing or no number sets no ceiling at admission; the controller keeps its own all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.crds.definition import PART_OF
from controller.tasks import KINDS, Limits, NetPatrol

NAME = "kpatrol-ceilings"


def policy() -> dict[str, Any]:
    """The ValidatingAdmissionPolicy ``kpatrol-ceilings``."""
    models = [model for model in KINDS.values() if model is not NetPatrol]
    figure = "params.data[object.kind]"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME, "labels": dict(PART_OF)},
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [models[0].API_VERSION.partition("/")[0]],
                        "apiVersions": ["v1beta1"],
                        "operations": ["CREATE"],
                        "resources": [model.PLURAL for model in models],
                    }
                ]
            },
            "variables": [
                {
                    "name": "ceiling",
                    "expression": (
                        f"has(params.data) && object.kind in params.data && {figure}.matches('^[1-9][0-9]{{0,8}}$') "
                        f"? int({figure}) : 1000000000"
                    ),
                }
            ],
            "validations": [
                {
                    "expression": "object.spec.request.qps <= variables.ceiling",
                    "messageExpression": (
                        "'spec.request.qps: found ' + string(object.spec.request.qps) + "
                        "', allowed: whole number from 1 to ' + string(variables.ceiling)"
                    ),
                    "reason": "Invalid",
                }
            ],
        },
    }


def figures(*, namespace: str, limits: Limits) -> dict[str, Any]:
    """The ConfigMap that holds an installation's ceilings, kind → requests/s."""
    data: Mapping[str, str] = {kind: str(most) for kind, most in limits.max_qps.items() if kind != NetPatrol.KIND}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace, "labels": dict(PART_OF)},
        "data": dict(data),
    }


def binding(*, namespace: str) -> dict[str, Any]:
    """The ValidatingAdmissionPolicyBinding to that ConfigMap."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME, "labels": dict(PART_OF)},
        "spec": {
            "policyName": NAME,
            "paramRef": {"name": NAME, "namespace": namespace, "parameterNotFoundAction": "Allow"},
            "validationActions": ["Deny"],
        },
    }
