"""The forms that an answer can take, by the caller's Accept header. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from controller.report_api.refusals import not_acceptable

Media = Literal["application/json", "application/yaml"]
_MEDIA: dict[str, Media] = {
    "application/json": "application/json",
    "application/yaml": "application/yaml",
    "text/yaml": "application/yaml",
    "application/*": "application/json",
    "*/*": "application/json",
    "text/html": "application/json",
}
_SHAPES = ("", "Table", "PartialObjectMetadata", "PartialObjectMetadataList", "APIGroupDiscoveryList")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A media type, and what the object shall be turned into (``as``), in which version of that."""

    media: Media = "application/json"
    shape: str = ""
    version: str = ""

    def content_type(self) -> str:
        """The Content-Type of an answer in this form."""
        if self.shape == "APIGroupDiscoveryList":
            return f"{self.media};g=apidiscovery.k8s.io;v={self.version};as={self.shape}"
        return self.media

    def encode(self, document: Any) -> bytes:
        """The document's bytes."""
        if self.media == "application/yaml":
            dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
            text: bytes = yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, encoding="utf-8")
            return text
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def chosen(accept: str, *, shapes: tuple[str, ...]) -> Form:
    """The first form of the header that is served. Raises Refusal (406). No header means JSON."""
    if not accept.strip():
        return Form()
    for item in accept.split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        named = dict(parameter.partition("=")[::2] for parameter in parameters)
        shape = named.get("as", "")
        served = media.lower() in _MEDIA and shape in _SHAPES and (not shape or shape in shapes)
        if served and (shape != "Table" or named.get("v", "v1") == "v1"):
            return Form(media=_MEDIA[media.lower()], shape=shape, version=named.get("v", ""))
    raise not_acceptable(accept)
