"""containerd's folder with the images in it, unpacked once and hard-linked for every node."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kpatrol.lab.commands import run_command
from kpatrol.lab.errors import LabError
from kpatrol.lab.kafka_jars import cache_folder
from tests.cluster.archive import Image, write_archive
from tests.cluster.images import digest
from tests.cluster.nodefiles import containerd_config, socket_path

_START_S = 60.0
# What containerd writes in place. Everything else (contents, unpacked files) it only ever adds and removes.
_DATABASES = "*.db"

Say = Callable[[str], None]


def containerd_template(images: Sequence[Image], *, say: Say) -> Path:
    """The folder `root` of a containerd that knows the images; made once for each set of images."""
    cache = cache_folder(os.environ) / "containerd"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / digest(images)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            say(f"unpacking {len(images)} images (once)")
            for stale in cache.glob("*.partial"):
                shutil.rmtree(stale, ignore_errors=True)
            _unpack(target.with_suffix(".partial"), images)
            target.with_suffix(".partial").rename(target)
        os.utime(target)
        folders = [p for p in cache.iterdir() if p.is_dir()]
        for old in sorted(folders, key=lambda p: p.stat().st_mtime)[:-2]:
            shutil.rmtree(old, ignore_errors=True)
    return target / "containerd" / "root"


def copy_template(template: Path, root: Path) -> None:
    """A containerd folder of a node's own: files are shared (hard links) where the file system allows."""
    root.parent.mkdir(parents=True, exist_ok=True)
    same_disk = template.stat().st_dev == root.parent.stat().st_dev
    run_command(["cp", "-al" if same_disk else "-a", str(template), str(root)], timeout_s=300)
    for database in template.rglob(_DATABASES):
        if "snapshots" not in database.parts:
            own = root / database.relative_to(template)
            own.unlink()
            shutil.copy2(database, own)


def _unpack(folder: Path, images: Sequence[Image]) -> None:
    folder.mkdir()
    config = folder / "containerd.toml"
    config.write_text(containerd_config(folder))
    with (folder / "containerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "containerd", "-c", str(config)], stdout=log, stderr=log
        )
    try:
        wait_containerd(socket_path(folder), log=folder / "containerd.log")
        ctr = ["nice", "-n", "10", "ctr", "--address", str(socket_path(folder)), "--namespace", "k8s.io"]
        load = subprocess.Popen([*ctr, "images", "import", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert load.stdin is not None
        with load.stdin as stream:
            write_archive(stream, images)  # type: ignore[arg-type]
        if load.wait() != 0:
            raise LabError(f"ctr images import ended with {load.returncode}")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
    shutil.rmtree(folder / "containerd" / "state", ignore_errors=True)


def wait_containerd(socket: Path, *, log: Path) -> None:
    """Until it answers."""
    end = time.monotonic() + _START_S
    ask = ["ctr", "--address", str(socket), "--connect-timeout", "2s", "version"]
    while subprocess.run(ask, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        if time.monotonic() > end:
            raise LabError(f"containerd does not answer on {socket}\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
