"""The real programs of the cluster tests: found, or built once by Go from the module proxy into the user's cache.

    from tests.cluster.binaries import ensure
    programs = ensure("kube-apiserver", "etcd", "kubectl")     # name -> path
    python -m tests.cluster.binaries                            # builds all of them

A folder named by KUBEBUILDER_ASSETS goes first, for each program that it holds. Whoever comes while another process
builds waits for it: one build, however many ask. Cold on 2 cores: kube-apiserver with kubectl 8 minutes, the four of
the nodes 3, CoreDNS 1, Helm 3, etcd 1; what Go has in its own build cache costs nothing again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kpatrol.lab.errors import CommandFailed, MissingProgram
from kpatrol.lab.kafka_jars import cache_folder

KUBERNETES_VERSION = "1.35.4"
ETCD_VERSION = "3.6.5"
COREDNS_VERSION = "1.13.2"
HELM_VERSION = "3.19.2"
_MODULES = Path(__file__).parent / "go"
_VERSION = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES_VERSION} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=35"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Programs that one `go build` makes, in `module` below `modules`; program name → its package."""

    folder: str
    module: str
    packages: Mapping[str, str]
    flags: str = "-s -w"
    modules: Path = _MODULES


def _kubernetes(*names: str) -> Build:
    packages = {name: f"k8s.io/kubernetes/cmd/{name}" for name in names}
    return Build(
        folder=f"kubernetes-{KUBERNETES_VERSION}", module="kubernetes", packages=packages, flags=_KUBERNETES_FLAGS
    )


# Two builds of one module: who needs no nodes need not wait for what nodes run.
BUILDS = (
    Build(folder=f"etcd-{ETCD_VERSION}", module="etcd", packages={"etcd": "."}),
    _kubernetes("kube-apiserver", "kubectl"),
    _kubernetes("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    Build(folder=f"coredns-{COREDNS_VERSION}", module="coredns", packages={"coredns": "."}),
    Build(folder="pause-1", module="pause", packages={"pause": "."}),
    Build(folder=f"helm-{HELM_VERSION}", module="helm", packages={"helm": "helm.sh/helm/v3/cmd/helm"}),
)
NAMES = tuple(name for build in BUILDS for name in build.packages)

Say = Callable[[str], None]


def ensure(*names: str, environment: Mapping[str, str] | None = None, say: Say | None = None) -> dict[str, Path]:
    """The path of each program, built first where need be. Raises `MissingProgram` without Go, `CommandFailed` with
    the compiler's own words."""
    settings = os.environ if environment is None else environment
    cache = cache_folder(settings)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ValueError(f"program: found {', '.join(unknown)}, allowed: {', '.join(NAMES)}")
    for build in BUILDS:
        wanted = [name for name in names if name in build.packages and _found(name, build, settings) is None]
        if wanted:
            build_once(build, cache, say=say or _to_stderr)
    paths = {name: _found(name, build, settings) for build in BUILDS for name in names if name in build.packages}
    return {name: path for name, path in paths.items() if path is not None}


def _found(name: str, build: Build, settings: Mapping[str, str]) -> Path | None:
    assets = settings.get("KUBEBUILDER_ASSETS", "")
    folders = [*([Path(assets)] if assets else []), cache_folder(settings) / build.folder]
    return next((folder / name for folder in folders if os.access(folder / name, os.X_OK)), None)


def build_once(build: Build, cache: Path, *, say: Say) -> None:
    """Builds what is not there; waits where another process does. Raises `MissingProgram`, `CommandFailed`."""
    target = cache / build.folder
    target.mkdir(parents=True, exist_ok=True)
    names = ", ".join(build.packages)
    with (cache / f"{build.folder}-{next(iter(build.packages))}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process builds {names}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if all((target / name).exists() for name in build.packages):
            return
        say(f"building {names} with Go (once; into {target})")
        began = time.monotonic()
        _go_build(build, target)
        say(f"built {names} in {time.monotonic() - began:.0f} s")


def _go_build(build: Build, target: Path) -> None:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise MissingProgram(
            "not installed: go 1.25 or later (https://go.dev/dl); it builds programs that the tests run"
        )
    partial = target / f".partial-{next(iter(build.packages))}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    command = ["nice", "-n", "10", go, "build", "-mod=readonly", "-trimpath", "-ldflags", build.flags]
    # A trailing slash makes it a folder; the one package "." would name its program after the module.
    output = (
        [f"{partial}/{name}" for name in build.packages] if list(build.packages.values()) == ["."] else [f"{partial}/"]
    )
    done = subprocess.run(
        [*command, "-o", output[0], *build.packages.values()],
        cwd=build.modules / build.module,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(f"go build in {build.modules.name}/{build.module}: {done.stderr.strip()[-2000:]}")
    # A program gets its name in one step and last, so that its presence means whole.
    for name in build.packages:
        (partial / name).rename(target / name)
    partial.rmdir()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    for program, path in ensure(*(sys.argv[1:] or NAMES)).items():
        print(f"{program}\t{path}")
