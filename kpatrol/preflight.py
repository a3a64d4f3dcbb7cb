"""What a `make` goal needs of the machine, what is missing, and how to get it.

Run with the system's Python before anything is installed, so: standard library only. As root on Debian it installs
what is missing; otherwise it says exactly which packages, and ends with 2.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# program -> (Debian package, what it is for)
PROGRAMS = {
    "java": ("openjdk-17-jre-headless", "Apache Kafka runs on it (Java 17 or newer)"),
    "mvn": ("maven", "fetches Kafka's jars into your cache folder"),
    "ip": ("iproute2", "network namespaces for the agents"),
    "nft": ("nftables", "fault injection and service addresses"),
    "nsenter": ("util-linux", "starting processes inside a namespace"),
    "unbound": ("unbound", "a real DNS server as a target"),
    "chromium": ("chromium", "the page is tested in a real browser"),
    "nginx": ("nginx", "a real HTTP server: a target of tests, and what the agent and its peers are measured against"),
    "wrk": ("wrk", "HTTP load to compare with"),
    "dnsperf": ("dnsperf", "DNS load to compare with"),
    "containerd": ("containerd", "runs the containers of the test cluster's nodes"),
    "runc": ("runc", "starts those containers"),
    "/usr/lib/cni/ptp": ("containernetworking-plugins", "the pods' network"),
    "debootstrap": ("debootstrap", "the base of the images, made without a registry"),
}
# No Debian release of the day brings one that is new enough.
GO = "go"
GO_LEAST = (1, 25)
GO_HINT = (
    "https://go.dev/dl; it builds Kubernetes, etcd, CoreDNS, Helm and ClickHouse's Go client from the module proxy "
    "(15 minutes, once)"
)
GO_FOLDERS = "/usr/local/go/bin:/usr/lib/go/bin"
CLUSTER = ("containerd", "runc", "/usr/lib/cni/ptp", "debootstrap", GO)
# Goals that start kubelets and containers.
NEED_ROOT = ("test", "cluster")
GOALS = {
    "check": (),
    "demo": ("java", "mvn", "ip", "nft", "nsenter"),
    "test": ("java", "mvn", "ip", "nft", "nsenter", "unbound", "nginx", "chromium", *CLUSTER),
    "test-without-cluster": ("java", "mvn", "ip", "nft", "nsenter", "unbound", "nginx", "chromium"),
    "cluster": ("java", "mvn", "ip", "nft", "nsenter", "nginx", *CLUSTER),
    "bench": ("java", "mvn", "ip", "nft", "nsenter", "unbound", "nginx", "wrk", "dnsperf"),
    "soak": ("java", "mvn", "ip", "nft", "nsenter", "unbound", *CLUSTER),
}
# What a goal fetches the first time and what that takes on disk, in megabytes: so that nobody wonders about the wait.
FROM_GO = "Go modules of Kubernetes (for `make test` and `make cluster`)"
DOWNLOADS_MB = {
    FROM_GO: (250, 4500),
    "Python packages (.venv)": (320, 1300),
    "Apache Kafka's jars (your cache folder)": (45, 45),
}
SBIN = "/usr/sbin:/sbin"


def missing_programs(goal: str) -> list[str]:
    """Programs of a goal that are not on this machine."""
    path = os.environ.get("PATH", "") + ":" + SBIN
    return [name for name in GOALS[goal] if name != GO and shutil.which(name, path=path) is None]


def missing_go(goal: str) -> str:
    """What is wrong with Go, where the goal needs it; empty when nothing is."""
    if GO not in GOALS[goal]:
        return ""
    least = ".".join(map(str, GO_LEAST))
    go = shutil.which(GO, path=os.environ.get("PATH", "") + ":" + GO_FOLDERS)
    if go is None:
        return f"missing Go {least} or later: {GO_HINT}"
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < GO_LEAST:
        return f"Go {said or 'of an unknown version'} found at {go}, {least} or later needed: {GO_HINT}"
    return ""


def can_install() -> bool:
    """Whether we may install Debian packages: root, with apt."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: list[str]) -> bool:
    """Install Debian packages; true when it worked."""
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *packages]):
        if subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            return False
    return True


def main(goal: str) -> int:
    """0 when everything is there (or could be installed), 2 when not."""
    if goal not in GOALS:
        sys.stderr.write(f"preflight: found goal {goal!r}, allowed: {', '.join(GOALS)}\n")
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036 (any Python may run this file)
        sys.stderr.write(f"preflight: Python {sys.version.split()[0]} found, 3.11 or newer needed\n")
        return 2
    if not Path(".venv/bin/python").exists():
        print("preflight: first run; what is not there yet is fetched by the command that needs it:")
        for what, (download_mb, disk_mb) in DOWNLOADS_MB.items():
            print(f"  about {download_mb:>4} MB, {disk_mb:>5} MB on disk: {what}")
    why = "tests/cluster needs root" if goal in NEED_ROOT and os.geteuid() != 0 else missing_go(goal)
    if why:
        sys.stderr.write(f"preflight: {why}; without it: make test CLUSTER=no\n")
        return 2
    missing = missing_programs(goal)
    if not missing:
        print(f"preflight: all that `make {goal}` needs is here")
        return 0
    packages = sorted({PROGRAMS[name][0] for name in missing})
    for name in missing:
        print(f"preflight: missing {name}: {PROGRAMS[name][1]} (Debian package {PROGRAMS[name][0]})")
    if can_install():
        print(f"preflight: installing {', '.join(packages)} with apt", flush=True)
        if install(packages) and not missing_programs(goal):
            return 0
    sys.stderr.write(f"preflight: install these, then run again:  apt-get install {' '.join(packages)}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
