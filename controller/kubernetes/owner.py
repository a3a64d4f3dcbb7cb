"""Whether the definitions in the cluster are ours: kdoctor's own, with its webhooks, cannot be there at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller.crds.definition import PART_OF
from controller.kubernetes.door import Door
from controller.kubernetes.errors import Unreachable
from controller.tasks import KINDS

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations"
Object = Mapping[str, Any]


def strangers(door: Door) -> list[str]:
    """What is to be said about definitions and webhooks that are not ours; nothing when all is well."""
    found = []
    for model in KINDS.values():
        name = f"{model.PLURAL}.{model.API_VERSION.partition('/')[0]}"
        try:
            found.append(door.request("GET", f"{_DEFINITIONS}/{name}"))
        except Unreachable as error:
            found.append({"metadata": {"name": name}, "missing": str(error)})
    webhooks: list[Object] = []
    for kind in ("mutating", "validating"):
        try:
            webhooks += door.request("GET", _WEBHOOKS.format(kind=kind))["items"]
        except Unreachable:
            # Without the right to look there is nothing to say.
            continue
    return [*_definitions(found), *_webhooks(webhooks)]


def _definitions(found: Iterable[Object]) -> Iterator[str]:
    for definition in found:
        metadata = definition["metadata"]
        if "missing" in definition:
            yield f"definition {metadata['name']}: {definition['missing']}; apply deploy/crds"
        elif not PART_OF.items() <= (metadata.get("labels") or {}).items():
            yield (
                f"definition {metadata['name']} is another product's ({_owner(metadata)}): its schema holds, not ours; "
                "see docs/kubernetes.md, Coming from kdoctor"
            )


def _webhooks(found: Iterable[Object]) -> Iterator[str]:
    group = "kdoctor.io"
    for configuration in found:
        rules = (rule for hook in configuration.get("webhooks") or [] for rule in hook.get("rules") or [])
        if any(group in rule.get("apiGroups", ()) for rule in rules):
            yield (
                f"webhook {configuration['metadata']['name']} ({_owner(configuration['metadata'])}) judges tasks of "
                f"{group}: an installed kdoctor? See docs/kubernetes.md, Coming from kdoctor"
            )


def _owner(metadata: Mapping[str, Any]) -> str:
    annotations = metadata.get("annotations") or {}
    release = annotations.get("meta.helm.sh/release-name", "")
    space = annotations.get("meta.helm.sh/release-namespace", "")
    return f"Helm release {space}/{release}" if release else "no Helm release"
