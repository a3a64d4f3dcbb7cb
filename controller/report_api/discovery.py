"""What kubectl and the aggregator ask first: groups, versions, resources, in the old form and the aggregated. Pure."""

from __future__ import annotations

from typing import Any

from controller.report_api.material import API_VERSION, GROUP, KIND, VERSION
from controller.report_api.refusals import RESOURCE

Json = dict[str, Any]

VERBS = ["get", "list"]
SINGULAR = "kdoctorreport"
_VERSION: Json = {"groupVersion": API_VERSION, "version": VERSION}


def group() -> Json:
    """/apis/system.kdoctor.io"""
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [_VERSION],
        "preferredVersion": _VERSION,
    }


def group_list() -> Json:
    """/apis"""
    listed = {key: value for key, value in group().items() if key not in ("kind", "apiVersion")}
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [listed]}


def resource_list() -> Json:
    """/apis/system.kdoctor.io/v1beta1"""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": API_VERSION,
        "resources": [
            {"name": RESOURCE, "singularName": SINGULAR, "namespaced": True, "kind": KIND, "verbs": VERBS},
        ],
    }


def aggregated(version: str) -> Json:
    """/apis in the aggregated form: ``version`` is v2 or v2beta1 of apidiscovery.k8s.io."""
    kind = {"group": GROUP, "version": VERSION, "kind": KIND}
    resource: Json = {
        "resource": RESOURCE,
        "responseKind": kind,
        "scope": "Namespaced",
        "singularResource": SINGULAR,
        "verbs": VERBS,
    }
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": GROUP, "creationTimestamp": None},
                "versions": [{"version": VERSION, "resources": [resource], "freshness": "Current"}],
            }
        ],
    }
