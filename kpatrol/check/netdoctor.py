"""NetDoctor's config.json in the settings of a check. Pure.

Its protocol `tcp` is an HTTP request: here it is both, a connection and a request. Its `udp` is a ping; here it is UDP.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SAME = {"namespace": "namespace", "mode": "mode", "podWaitTime": "waitS", "maxNum": "concurrency"}
_FILES = {"srcKubeConfig": "kubeconfig", "dstKubeConfig": "peerKubeconfig"}
_PROTOCOLS = {"tcp": ("tcp", "http"), "icmp": ("icmp",), "udp": ("udp",), "dns": ("dns",)}
_TARGETS = ("customizedTargetIPList", "customizedTargetPortList")
_DNS = ("targetDNSServer", "targetHostToLookup")
_OF_ITS_IMAGE = ("version", "srcImageRepository", "dstImageRepository", "port")
KEYS = frozenset({*_SAME, *_FILES, *_TARGETS, *_DNS, *_OF_ITS_IMAGE, "protocol", "cmdTimeout", "autoClean"})


class BadConfig(Exception):
    """The configuration cannot be used: file, field, found, allowed."""


def translate(found: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(our settings, what the reader should know of settings that have no meaning here). Raises BadConfig."""
    unknown = sorted(found.keys() - KEYS)
    if unknown:
        raise BadConfig(f"{where}: {unknown[0]}: no such setting, allowed: {', '.join(sorted(KEYS))}")
    settings = {ours: found[theirs] for theirs, ours in _SAME.items() if theirs in found}
    settings |= {ours: str(Path(found[theirs]).expanduser()) for theirs, ours in _FILES.items() if found.get(theirs)}
    settings |= _what(found, where) | _dns(found) | {"keep": not found.get("autoClean", False)}
    if "cmdTimeout" in found:
        settings["timeoutMs"] = _seconds(found["cmdTimeout"], where) * 1000
    notes = [f"{name} is of NetDoctor's own image and is not used; ours: image, peerImage" for name in _OF_ITS_IMAGE]
    return settings, tuple(note for name, note in zip(_OF_ITS_IMAGE, notes, strict=True) if name in found)


def _what(found: Mapping[str, Any], where: str) -> dict[str, Any]:
    protocol = found.get("protocol", "tcp")
    if protocol not in _PROTOCOLS:
        raise BadConfig(f"{where}: protocol: found {protocol!r}, allowed: {', '.join(_PROTOCOLS)}")
    addresses, ports = (found.get(name) or [] for name in _TARGETS)
    if not addresses:
        return {"protocols": _PROTOCOLS[protocol]}
    kind = "udp" if protocol == "udp" else "tcp"
    return {"protocols": (), "addresses": addresses, "ports": ports, "addressProtocol": kind}


def _dns(found: Mapping[str, Any]) -> dict[str, Any]:
    server, name = (found.get(key) for key in _DNS)
    asked = {"server": server, "name": name}
    return {"dns": {key: value for key, value in asked.items() if value}} if server or name else {}


def _seconds(value: Any, where: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise BadConfig(f"{where}: cmdTimeout: found {value!r}, allowed: seconds from 1")
    return value
