"""The images of the cluster tests: a Debian base, the project's dependencies, and the project's own wheel on top.

    kpatrol/agent, kpatrol/streams, kpatrol/controller      share their layers and differ in how they start
    kpatrol/endpoint                                        has the ClickHouse engine besides (600 MB)
    kpatrol/kafka                                           Apache Kafka's jars and this machine's Java
    local/pause, local/coredns                              what holds a pod's namespaces; the cluster's DNS server

The tag is the project's version. Layers are kept in the user's cache by what went into them: the base takes a minute
once (debootstrap), the dependencies half a minute when constraints.txt changes, the wheel some seconds when code does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kpatrol.lab.commands import run_command
from kpatrol.lab.java import find_java
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from tests.cluster.archive import Image, Layer, read_layer, write_layer

ROOT = Path(__file__).parents[2]
_PACKAGES = ("topics", "producers", "streams", "controller", "kpatrol")
_DEBIAN = "bookworm"
_DEBIAN_PACKAGES = ("python3", "ca-certificates")
_PYTHON = "3.11"  # Debian's of that release
_SITE = f"usr/local/lib/python{_PYTHON}/dist-packages"
_UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt", "var/lib/apt/lists")
# The command `kpatrol` (its jobs run in the cluster too) without the engine, which has an image of its own.
_EXTRAS = ("agent", "streams", "controller", "command", "endpoint", "lab")
_ENGINE = ("chdb", "chdb-core")
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",
}
_TIMEOUT_S = 1200.0

Say = Callable[[str], None]


def project() -> dict[str, Any]:
    """The project's pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def version() -> str:
    """The tag of all images."""
    return str(project()["project"]["version"])


def image_name(role: str) -> str:
    """agent, streams, controller, endpoint → the name in a pod's manifest."""
    return f"kpatrol/{role}:{version()}"


def build_images(
    *, pause: Path, say: Say, coredns: Path | None = None, engine: bool = False, kafka: bool = False
) -> list[Image]:
    """All images, from the cache where nothing changed. `engine`, `kafka`: the endpoint's and Kafka's too. Needs root
    the first time."""
    cache = cache_folder(os.environ) / "layers"
    cache.mkdir(parents=True, exist_ok=True)
    base, libraries, wheel = _base(cache, say), _libraries(cache, say, engine=False), _wheel(cache, say)
    images = [
        _image(role, [base, libraries, wheel], entrypoint)
        for role, entrypoint in {
            "agent": ("python3", "-m", "producers"),
            "streams": ("python3", "-m", "streams"),
            "controller": ("python3", "-m", "controller"),
        }.items()
    ]
    if engine:
        layers = [base, libraries, _libraries(cache, say, engine=True), wheel]
        images.append(_image("endpoint", layers, ("python3", "-m", "kpatrol.endpoint")))
    if kafka:
        start = ("/opt/kafka/start.sh",)
        images.append(_image("kafka", [base, _kafka(cache, say)], start, {"PATH": "/opt/java/bin:/usr/bin:/bin"}))
    programs = {"pause": pause, **({"coredns": coredns} if coredns else {})}
    return [*images, *(_program(cache, name, path) for name, path in programs.items())]


def digest(images: Iterable[Image]) -> str:
    """Changes with anything in the images."""
    text = repr([(image.name, image.entrypoint, [layer.digest for layer in image.layers]) for image in images])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _image(
    role: str, layers: Sequence[Layer], entrypoint: Sequence[str], environment: Mapping[str, str] = _ENVIRONMENT
) -> Image:
    name = f"docker.io/{image_name(role)}"
    return Image(name=name, layers=layers, entrypoint=entrypoint, environment=environment, folder="/tmp")


def _program(cache: Path, name: str, path: Path) -> Image:
    """An image of one static program."""
    key = [hashlib.sha256(path.read_bytes()).hexdigest()]
    layer = _cached(cache, name, key, lambda _: {name: path}, lambda _: None)
    return Image(name=f"docker.io/local/{name}:1", layers=[layer], entrypoint=[f"/{name}"])


def _kafka(cache: Path, say: Say) -> Layer:
    jars = get_jars(cache_folder(os.environ), say=say)
    java, start = find_java().resolve().parents[1], ROOT / "deploy" / "kafka" / "start.sh"

    def make(work: Path) -> Mapping[str, Path]:
        # Debian keeps Java's settings elsewhere and links to them; some links of the bare runtime lead nowhere.
        shutil.copytree(java, work / "java", ignore_dangling_symlinks=True)
        return {"opt/java": work / "java", "opt/kafka/libs": jars, "opt/kafka/start.sh": start}

    return _cached(cache, "kafka", [str(java), jars.name, start.read_text()], make, say)


def _cached(cache: Path, kind: str, key: Iterable[str], make: Callable[[Path], Mapping[str, Path]], say: Say) -> Layer:
    name = f"{kind}-{hashlib.sha256(repr(list(key)).encode()).hexdigest()[:16]}"
    # Two clusters that start at once make it once.
    with (cache / f".{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = read_layer(cache / f"{name}.tar")
        if found is not None:
            return found
        say(f"image layer {name}: making it")
        with _work_folder(cache) as work:
            layer = write_layer(cache / f"{name}.tar", contents=make(work))
        # Two of a kind stay: two branches of the code may be worked on in turn.
        for old in sorted(cache.glob(f"{kind}-*.tar"), key=lambda p: p.stat().st_mtime)[:-2]:
            old.unlink()
            old.with_suffix(".sha256").unlink(missing_ok=True)
        return layer


@contextmanager
def _work_folder(cache: Path) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix="work-", dir=cache))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _base(cache: Path, say: Say) -> Layer:
    def make(work: Path) -> Mapping[str, Path]:
        root = work / "root"
        packages = ",".join(_DEBIAN_PACKAGES)
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", _DEBIAN, str(root)]
        run_command(command, timeout_s=_TIMEOUT_S)
        for folder in _UNUSED:
            shutil.rmtree(root / folder, ignore_errors=True)
        (root / "usr/bin/python").symlink_to("python3")
        with (root / "etc/passwd").open("a") as users:
            users.write("kpatrol:x:65532:65532:kpatrol:/tmp:/usr/sbin/nologin\n")
        with (root / "etc/group").open("a") as groups:
            groups.write("kpatrol:x:65532:\n")
        (root / "etc/resolv.conf").write_text("")
        return {entry.name: entry for entry in sorted(root.iterdir())}

    return _cached(cache, "base", [_DEBIAN, *_DEBIAN_PACKAGES], make, say)


def requirements(*, engine: bool) -> list[str]:
    """What pip is asked for: the libraries of all services, or only the engine."""
    table = project()["project"]
    wanted = [*table["dependencies"], *(r for extra in _EXTRAS for r in table["optional-dependencies"][extra])]
    wanted = [r for r in wanted if not r.startswith("kpatrol[")]
    return sorted({r for r in wanted if _is_engine(r) == engine})


def _is_engine(requirement: str) -> bool:
    return requirement.split("==", maxsplit=1)[0].split(">", maxsplit=1)[0].strip() in _ENGINE


def _libraries(cache: Path, say: Say, *, engine: bool) -> Layer:
    wanted, pinned = requirements(engine=engine), (ROOT / "constraints.txt").read_text()

    def make(work: Path) -> Mapping[str, Path]:
        only = ["--no-deps"] if engine else []  # what it needs besides is in the layer below
        _pip(work / "site", [*only, "--constraint", str(ROOT / "constraints.txt"), *wanted])
        return {_SITE: work / "site"}

    return _cached(cache, "engine" if engine else "libraries", [_PYTHON, pinned, *wanted], make, say)


def _wheel(cache: Path, say: Say) -> Layer:
    sources = [ROOT / "pyproject.toml", *(p for name in _PACKAGES for p in sorted((ROOT / name).rglob("*")))]
    files = [p for p in sources if p.is_file() and "__pycache__" not in p.parts]
    key = [f"{p.relative_to(ROOT)} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in files]

    def make(work: Path) -> Mapping[str, Path]:
        run = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        run_command([*run, "wheel", "--no-deps", "--wheel-dir", str(work), str(ROOT)], timeout_s=_TIMEOUT_S)
        _pip(work / "site", ["--no-deps", str(next(work.glob("kpatrol-*.whl")))])
        return {_SITE: work / "site"}

    return _cached(cache, "wheel", key, make, say)


def _pip(target: Path, arguments: Sequence[str]) -> None:
    """Install for the image's Python, whichever runs here."""
    machine = platform.machine()
    platforms = [f"--platform={tag}_{machine}" for tag in ("manylinux2014", "manylinux_2_28", "manylinux_2_34")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    flags = ["--only-binary=:all:", f"--python-version={_PYTHON}", "--implementation=cp", *platforms]
    run_command([*command, "--target", str(target), *flags, *arguments], timeout_s=_TIMEOUT_S)
    if ".".join(platform.python_version_tuple()[:2]) == _PYTHON:
        # In a read-only container nothing can be compiled later; without this every start costs seconds.
        quiet = ["-q", "-j", "2", "--invalidation-mode", "unchecked-hash", "-s", str(target), "-p", f"/{_SITE}"]
        subprocess.run([sys.executable, "-m", "compileall", *quiet, str(target)], check=False)
