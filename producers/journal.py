"""What this agent has done with each round, on local disk: one file a (round, incarnation), one JSON line an event.

The state of a share is the fold of its lines, for the running agent as for the next incarnation that finds the file,
so both account by the same rule. A line cut short by a crash is passed over: what it said counts as missing.
Order of effects: a batch is in the spool before its line is here; a lost batch's line is here before it is accounted.
Only the first line of a share is flushed to the disk: a kill loses nothing, and after a power failure the share's last
lines may be gone, so that more is declared missing than is.
"""

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import msgspec

from topics.round_progress import AGENT_DIED, AgentFinished, Condition, HopTrace, NodeCounters

log = logging.getLogger(__name__)


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    pass


class Began(_Line, frozen=True, kw_only=True, tag="began"):
    """The share is about to run. From here on this round is never run again by this agent."""

    round_id: int
    number: int
    task_uid: str
    task: str
    incarnation: int
    planned: int
    deadline_us: int
    asked_rate: float
    at_us: int
    replaced: bool = False


class Sealed(_Line, frozen=True, kw_only=True, tag="sealed"):
    """A batch of so many rows is in the spool."""

    batch_seq: int
    rows: int


class Lost(_Line, frozen=True, kw_only=True, tag="lost"):
    """A sealed batch will never reach Kafka."""

    batch_seq: int
    rows: int
    cause: str


class Ended(_Line, frozen=True, kw_only=True, tag="ended"):
    """The load is over: what the engine and the instrument say. `unrecorded_cause` is set when the engine failed:
    then whatever has neither a row nor was unsent is missing by that cause."""

    unsent: int
    further: int = 0
    achieved_rate: float = 0.0
    lateness_p50_us: int = 0
    lateness_p99_us: int = 0
    lateness_max_us: int = 0
    loop_lag_max_us: int = 0
    cpu_us: int = 0
    throttled_us: int = 0
    socket_drops: int = 0
    resident_bytes: int = 0
    unrecorded_cause: str = ""
    note: str = ""
    clock_offset_us: int | None = None
    unsent_causes: dict[str, int] = {}
    condition: Condition = Condition()
    node_counters: NodeCounters | None = None
    traces: tuple[HopTrace, ...] = ()
    trace_id: str = ""


class Finished(_Line, frozen=True, kw_only=True, tag="finished"):
    """AgentFinished of this share is in Kafka."""

    at_us: int


Event: TypeAlias = Began | Sealed | Lost | Ended | Finished

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


@dataclass(slots=True)
class Story:
    """A share so far. `sealed` and `lost` are rows by batch number; `causes` the rows lost by cause."""

    began: Began | None = None
    sealed: dict[int, int] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    ended: Ended | None = None
    finished: bool = False
    torn_lines: int = 0

    def apply(self, event: Event) -> None:
        """Fold one event in; an event told twice changes nothing."""
        if isinstance(event, Began):
            self.began = event
        elif isinstance(event, Sealed):
            self.sealed[event.batch_seq] = event.rows
        elif isinstance(event, Lost):
            self.sealed.setdefault(event.batch_seq, event.rows)
            if event.batch_seq not in self.lost:
                self.lost[event.batch_seq] = event.rows
                self.causes[event.cause] = self.causes.get(event.cause, 0) + event.rows
        elif isinstance(event, Ended):
            self.ended = event
        else:
            self.finished = True

    @property
    def batches(self) -> int:
        """Batches stored in Kafka or on their way."""
        return len(self.sealed) - len(self.lost)

    @property
    def rows(self) -> int:
        """Rows in those batches."""
        return sum(self.sealed.values()) - sum(self.lost.values())


def replay(data: bytes) -> Story:
    """The story that a journal file tells."""
    story = Story()
    for line in data.split(b"\n"):
        if not line:
            continue
        try:
            story.apply(_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            story.torn_lines += 1
    return story


def account(*, story: Story, agent: str, node: str, at_us: int) -> AgentFinished:
    """The agent's account of a share: planned = sent + unsent + declared_missing wherever each has its cause.

    A share without an `ended` line was cut off by the agent's death: what has no row is missing. In one that ended,
    rows + unsent short of planned would be our own fault and stays visible: it is not declared away.
    """
    began = story.began
    if began is None:
        raise ValueError("a story without its beginning has no account")
    ended = story.ended or Ended(unsent=0, unrecorded_cause=AGENT_DIED, note="declared by the next incarnation")
    causes = dict(story.causes)
    told = sum(story.sealed.values()) + ended.unsent
    # An agent that died did not say how many attempts it added; those beyond what it owed are known at least.
    further = max(ended.further, told - began.planned) if story.ended is None else ended.further
    unrecorded = began.planned + further - told
    if ended.unrecorded_cause and unrecorded > 0:
        causes[ended.unrecorded_cause] = causes.get(ended.unrecorded_cause, 0) + unrecorded
    return AgentFinished(
        task_uid=began.task_uid,
        round_id=began.round_id,
        agent=agent,
        node=node,
        incarnation=began.incarnation,
        at_us=at_us,
        planned=began.planned + further,
        further=further,
        sent=story.rows,
        unsent=ended.unsent,
        batches=story.batches,
        rows=story.rows,
        declared_missing=sum(causes.values()),
        missing_cause=", ".join(sorted(causes)),
        asked_rate=began.asked_rate,
        achieved_rate=ended.achieved_rate,
        lateness_p50_us=ended.lateness_p50_us,
        lateness_p99_us=ended.lateness_p99_us,
        lateness_max_us=ended.lateness_max_us,
        loop_lag_max_us=ended.loop_lag_max_us,
        cpu_us=ended.cpu_us,
        throttled_us=ended.throttled_us,
        socket_drops=ended.socket_drops,
        resident_bytes=ended.resident_bytes,
        clock_offset_us=ended.clock_offset_us,
        note=ended.note,
        unsent_causes=ended.unsent_causes,
        condition=ended.condition,
        node_counters=ended.node_counters,
        traces=ended.traces,
        task=began.task,
        trace_id=ended.trace_id,
        began_us=began.at_us,
        replaced=began.replaced,
    )


class Account:
    """One share's journal file and its story, kept alike."""

    def __init__(self, *, path: Path, story: Story) -> None:
        self.story = story
        self._path = path
        self._file: int | None = None

    def write(self, event: Event) -> None:
        """Fold one event in and append it. Raises OSError for the first event only: a share that runs goes on when
        the disk is full, and then only a crash on top would miscount it."""
        self.story.apply(event)
        try:
            self._append(event)
        except OSError as error:
            if isinstance(event, Began):
                raise
            log.error("event=journal_not_written file=%s why=%r", self._path.name, str(error))

    def _append(self, event: Event) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # A leading newline parts this line from one that a crash cut short.
        lead = b"\n" if self.story.torn_lines else b""
        os.write(self._file, lead + _encoder.encode(event) + b"\n")
        if isinstance(event, Began):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Journal:
    """All shares this agent knows of, and the number of its present incarnation."""

    def __init__(self, *, folder: Path) -> None:
        """Open (or make) the folder and read what earlier incarnations left. Raises OSError."""
        self._folder = folder / "rounds"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mark = folder / "incarnation"
        # When the first incarnation of this folder began, µs since the epoch; rounds before it are not known here.
        self.since_us = sys.maxsize
        self._known: set[int] = set()
        self.accounts: dict[tuple[int, int], Account] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            round_id, _, incarnation = path.stem.partition("-")
            if round_id.isdigit() and incarnation.isdigit():
                self._known.add(int(round_id))
                self.accounts[int(round_id), int(incarnation)] = Account(path=path, story=replay(path.read_bytes()))

    def known(self, round_id: int) -> bool:
        """Whether this agent has begun that round, in any incarnation."""
        return round_id in self._known

    def next_incarnation(self, *, now_us: int) -> int:
        """A number greater than every earlier one of this folder: the start time, unless the clock went back."""
        earlier = [int(n) for n in self._mark.read_text().split() if n.isdigit()] if self._mark.exists() else []
        floor = max([*earlier[:1], 0, *(i for _, i in self.accounts)])
        incarnation = max(now_us, floor + 1)
        self.since_us = earlier[-1] if earlier else incarnation
        part = self._mark.with_suffix(".part")
        with part.open("w") as file:
            file.write(f"{incarnation} {self.since_us}")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._mark)
        return incarnation

    def begin(self, began: Began) -> Account:
        """Open a share's account. Raises OSError: then the round must not run, for nothing could account for it."""
        path = self._folder / f"{began.round_id}-{began.incarnation}.jsonl"
        account_ = Account(path=path, story=Story())
        account_.write(began)
        self._known.add(began.round_id)
        self.accounts[began.round_id, began.incarnation] = account_
        return account_

    def forget(self, *, now_us: int, keep_us: int) -> int:
        """Drop finished (or unreadable) shares whose deadline is longer ago than `keep_us`; how many went."""
        gone = 0
        for (round_id, incarnation), account_ in list(self.accounts.items()):
            began = account_.story.began
            if began is not None and (not account_.story.finished or began.deadline_us + keep_us > now_us):
                continue
            if began is None and incarnation + keep_us > now_us:
                continue
            account_.close()
            (self._folder / f"{round_id}-{incarnation}.jsonl").unlink(missing_ok=True)
            del self.accounts[round_id, incarnation]
            gone += 1
        self._known = {round_id for round_id, _ in self.accounts}
        return gone
