"""Each verdict as one JSON line, and as a file where a folder is set: kdoctor's summary of a round, its keys.

``<Kind>_<task>_round<N>_summary_<expiry>``, expiry as kdoctor writes it (RFC 3339). A revised verdict takes the place
of the earlier one's file. What is expired goes, and the oldest where all together are too large.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from controller.status import go_duration, rfc3339
from topics.round_verdicts import RoundVerdict

log = logging.getLogger(__name__)

DAY_US = 86_400_000_000
_NAME = re.compile(r"^(?P<round>[A-Za-z]+_.+_round\d+_summary)_(?P<expiry>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$")


def summary(verdict: RoundVerdict) -> dict[str, Any]:
    """A verdict under kdoctor's keys (``RoundDuraiton`` is its own spelling), with the history item as detail."""
    name = verdict.task.partition("/")[2]
    duration = go_duration(max(0, verdict.at_us - verdict.start_us))
    whole: dict[str, Any] = {
        "TaskName": f"{verdict.kind.lower()}.{name}",
        "TaskSpec": verdict.spec,
        "RoundNumber": verdict.round,
        "RoundResult": verdict.verdict,
        "NodeName": "",
        "PodName": "",
        "FailedReason": "" if verdict.verdict == "succeed" else verdict.why,
        "StartTimeStamp": rfc3339(verdict.start_us),
        "EndTimeStamp": rfc3339(verdict.at_us),
        "RoundDuraiton": duration,
        "RoundDuration": duration,
        "ReportType": "round summary",
        "Revision": verdict.revision,
        "Final": verdict.final,
    }
    detail = {
        "status": verdict.verdict,
        "roundNumber": verdict.round,
        "startTimeStamp": rfc3339(verdict.start_us),
        "deadLineTimeStamp": rfc3339(verdict.deadline_us),
        "endTimeStamp": rfc3339(verdict.at_us),
        "duration": duration,
        "expectedActorNumber": len(verdict.accounts),
        "succeedAgentNodeList": list(verdict.succeeded_nodes),
        "failedAgentNodeList": list(verdict.failed_nodes),
        "notReportAgentNodeList": list(verdict.not_reported_nodes),
        "why": verdict.why,
        "requests": {"planned": verdict.planned, "succeeded": verdict.requests.ok, "failed": verdict.requests.failed},
        "packetLoss": {"sent": verdict.loss.sent, "lost": verdict.loss.lost},
    }
    return whole | {"Detail": detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A file of the folder. ``round`` is its name without the expiry."""

    name: str
    round: str
    expiry: str
    size_bytes: int


def to_remove(kept: Iterable[Kept], *, now: str, most_bytes: int) -> list[str]:
    """The files to remove: expired ones, then those that expire first until the rest is small enough. Pure."""
    gone: list[Kept] = []
    left: list[Kept] = []
    for item in sorted(kept, key=lambda item: (item.expiry, item.name)):
        (gone if item.expiry <= now else left).append(item)
    total = sum(item.size_bytes for item in left)
    # The newest stays, whatever its size.
    for item in left[:-1]:
        if total <= most_bytes:
            break
        total -= item.size_bytes
        gone.append(item)
    return [item.name for item in gone]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLines:
    """Writes verdicts: lines to ``out``, files to ``folder`` (None: none)."""

    out: TextIO
    folder: Path | None = None
    age_days: int = 30
    most_bytes: int = 256 << 20

    def tell(self, verdict: RoundVerdict, *, now_us: int) -> None:
        """One verdict. A full disk or a closed output is logged; nothing waits for it."""
        said = summary(verdict)
        try:
            self.out.write(json.dumps(said, ensure_ascii=False, separators=(",", ":")) + "\n")
            self.out.flush()
            if self.folder is not None:
                self._write(self.folder, verdict, said, now_us)
        except OSError as error:
            log.error("verdict of %s round %d cannot be written: %s", verdict.task, verdict.round, error)

    def clean(self, *, now_us: int) -> list[str]:
        """Removes what is expired or too much; the names."""
        if self.folder is None:
            return []
        names = to_remove(kept(self.folder), now=rfc3339(now_us), most_bytes=self.most_bytes)
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        return names

    def _write(self, folder: Path, verdict: RoundVerdict, said: dict[str, Any], now_us: int) -> None:
        name = verdict.task.partition("/")[2]
        round_ = f"{verdict.kind}_{name}_round{verdict.round}_summary"
        expiry = rfc3339(verdict.start_us + self.age_days * DAY_US)
        temporary = folder / f".{round_}.{os.getpid()}"
        temporary.write_text(json.dumps(said, indent="\t", ensure_ascii=False) + "\n")
        for item in kept(folder):
            if item.round == round_ and item.expiry != expiry:
                (folder / item.name).unlink(missing_ok=True)
        temporary.replace(folder / f"{round_}_{expiry}")
        self.clean(now_us=now_us)


def kept(folder: Path) -> list[Kept]:
    """Our files in a folder; others are left alone."""
    found = []
    for entry in os.scandir(folder):
        match = _NAME.match(entry.name)
        if match is not None and entry.is_file(follow_symlinks=False):
            found.append(
                Kept(name=entry.name, round=match["round"], expiry=match["expiry"], size_bytes=entry.stat().st_size)
            )
    return found
