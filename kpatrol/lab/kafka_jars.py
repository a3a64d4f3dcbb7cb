"""Gets Apache Kafka's jars through Maven into the user's cache, once, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kpatrol.lab.commands import find_program
from kpatrol.lab.errors import CommandFailed, MissingProgram

KAFKA_VERSION = "4.3.0"
# Kafka itself brings log4j's core, but nothing that leads slf4j to it.
_LOG4J_VERSION = "2.25.4"
_EXPECTED = "about 60 MB with Maven's own parts"
_SAY_EVERY_S = 1.0
_UNITS = {"B": 1, "kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}

Say = Callable[[str], None]

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>kpatrol</groupId>
  <artifactId>lab-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{_LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """$XDG_CACHE_HOME/kpatrol, else ~/.cache/kpatrol."""
    cache = environment.get("XDG_CACHE_HOME", "")
    parent = Path(cache) if cache else Path(environment.get("HOME") or Path.home()) / ".cache"
    return parent / "kpatrol"


def jars_folder(cache: Path) -> Path:
    return cache / f"kafka-{KAFKA_VERSION}"


def have_jars(cache: Path) -> bool:
    """True when nothing has to be downloaded. The folder gets its name last, so its presence means whole."""
    return jars_folder(cache).is_dir()


def get_jars(cache: Path, *, say: Say) -> Path:
    """The folder of Kafka's jars, downloaded if it is not there yet; `say` gets lines for a person.

    Safe when several processes call it at once: one downloads, the others wait. Raises `MissingProgram` without
    Maven, `CommandFailed` with Maven's own error lines.
    """
    target = jars_folder(cache)
    if have_jars(cache):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache, say):
        if not have_jars(cache):
            _download(cache, target, say)
    return target


@contextmanager
def _locked(cache: Path, say: Say) -> Iterator[None]:
    with (cache / "download.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is getting Kafka's jars; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _download(cache: Path, target: Path, say: Say) -> None:
    maven = find_program("mvn")
    if maven is None:
        raise MissingProgram("not installed: mvn (Debian and Ubuntu: apt-get install maven); it brings Kafka's jars")
    # Only one process is here at a time, so what lies here is of downloads that were killed.
    for stale in cache.glob("download-*"):
        shutil.rmtree(stale, ignore_errors=True)
    say(f"Apache Kafka {KAFKA_VERSION}: getting it through Maven, {_EXPECTED}, into {target}")
    work = Path(tempfile.mkdtemp(prefix="download-", dir=cache))
    try:
        (work / "pom.xml").write_text(_POM)
        began = time.monotonic()
        downloaded = _run_maven(maven, work, say)
        size = sum(jar.stat().st_size for jar in (work / "libs").glob("*.jar"))
        took_s = time.monotonic() - began
        say(f"Apache Kafka: {size / 1e6:.0f} MB of jars, {downloaded / 1e6:.0f} MB downloaded in {took_s:.0f} s")
        (work / "libs").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run_maven(maven: str, work: Path, say: Say) -> int:
    """Run it to its end; returns the bytes downloaded. Its progress lines are the only ones we need."""
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs"]
    log: list[str] = []
    total_bytes, said_at = 0, time.monotonic()
    with subprocess.Popen(
        [maven, "-B", *goal],
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line.rstrip())
            total_bytes += downloaded_bytes(line)
            if total_bytes and time.monotonic() - said_at >= _SAY_EVERY_S:
                said_at = time.monotonic()
                say(f"Apache Kafka: {total_bytes / 1e6:.1f} MB so far")
    if process.returncode != 0 or not any((work / "libs").glob(f"kafka_2.13-{KAFKA_VERSION}.jar")):
        errors = [line for line in log if "ERROR" in line][:5] or log[-5:]
        raise CommandFailed(f"mvn could not get Kafka's jars (exit code {process.returncode}): " + " | ".join(errors))
    return total_bytes


def downloaded_bytes(line: str) -> int:
    """The size in one of Maven's `Downloaded from ...: ... (5.6 MB at 3.1 MB/s)` lines, else 0."""
    match = re.search(r"Downloaded from .*\((\d+(?:\.\d+)?) ([kMG]?B) at ", line)
    return round(float(match[1]) * _UNITS[match[2]]) if match else 0
