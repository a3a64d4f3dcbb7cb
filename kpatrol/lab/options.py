"""What `kpatrol lab` was asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

KafkaSecurity = Literal["plaintext", "sasl_ssl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """Files of tasks, how many agents, which faults, and how long a minute of a schedule lasts here."""

    files: tuple[Path, ...] = ()
    agents: int = 5
    faults: tuple[str, ...] = ()
    rounds: int | None = None
    minute_s: float = 10.0
    max_qps: int | None = None
    zones: int = 1
    keep: bool = False
    kafka_security: KafkaSecurity = "plaintext"
    brokers: int = 1
    timeout_s: float = 900.0
    results_partitions: int = 4
    logs: Path | None = None
    mode: str = ""
    follow_ups: bool = False
