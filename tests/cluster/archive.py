"""Container images as files: layers made of folders, and the archive that `ctr images import` reads. No registry."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Nobody's clock may change what an image is.
_CREATED = "2026-01-01T00:00:00Z"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A tar file, not compressed, and the SHA-256 of it in hex."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What `name` (with its tag) runs: the layers from the lowest up, and how the process is started."""

    name: str
    layers: Sequence[Layer]
    entrypoint: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = "65532:65532"
    folder: str = "/"


def write_layer(path: Path, *, contents: Mapping[str, Path]) -> Layer:
    """A layer of these files and folders (name in the image → where it is now), owners and times made plain."""
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, source in contents.items():
            tar.add(source, arcname=name, filter=_plain)
    digest = _digest(partial)
    partial.rename(path)
    path.with_suffix(".sha256").write_text(digest)
    return Layer(path=path, digest=digest)


def read_layer(path: Path) -> Layer | None:
    """A layer written before; None when it is not (wholly) there."""
    noted = path.with_suffix(".sha256")
    return Layer(path=path, digest=noted.read_text()) if path.exists() and noted.exists() else None


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if member.ischr() or member.isblk() or member.isfifo():
        return None
    member.mtime = 0
    member.uname = member.gname = ""
    return member


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_archive(out: BinaryIO, images: Sequence[Image]) -> None:
    """All images in one stream of Docker's archive form; a layer that several share is written once."""
    layers = {layer.digest: layer for image in images for layer in image.layers}
    configs = {image.name: _config(image) for image in images}
    manifest = [
        {
            "Config": f"{_hash(configs[image.name])}.json",
            "RepoTags": [image.name],
            "Layers": [f"{layer.digest}/layer.tar" for layer in image.layers],
        }
        for image in images
    ]
    with tarfile.open(fileobj=out, mode="w|", bufsize=_BLOCK_BYTES) as tar:
        for digest, layer in layers.items():
            with layer.path.open("rb") as file:
                tar.addfile(_member(f"{digest}/layer.tar", layer.path.stat().st_size), file)
        for name, data in {_hash(data): data for data in configs.values()}.items():
            tar.addfile(_member(f"{name}.json", len(data)), io.BytesIO(data))
        listing = json.dumps(manifest).encode()
        tar.addfile(_member("manifest.json", len(listing)), io.BytesIO(listing))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _config(image: Image) -> bytes:
    run = {
        "Entrypoint": list(image.entrypoint),
        "Env": [f"{name}={value}" for name, value in image.environment.items()],
        "User": image.user,
        "WorkingDir": image.folder,
    }
    document = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": _CREATED,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in image.layers]},
    }
    return json.dumps(document, sort_keys=True).encode()
