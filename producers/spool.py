"""Sealed batches on local disk, from their sealing until Kafka has acknowledged them.

One file a batch: written beside, then renamed, so a kill -9 leaves either all of it or nothing. No fsync (a batch
every half second on every node is not worth a disk flush each): after a power failure a file may be torn, which its
checksum tells. The file's name carries the batch's identity and rows, so what a torn file held can still be counted.

Bounded in bytes: past the bound the oldest batches go. Never one that may be on its way to Kafka: it would be both
stored and declared missing. Batches are sent oldest first with at most `window` unacknowledged, so after a restart
the first `window` files of the last run are those that may have been sent; they are held like those in flight.
"""

import errno
import fcntl
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["results", "receipts"]

_MAGIC = b"KPS1"
_PREFIX_BYTES = 4 + 4 + 4
_CODES: dict[Kind, str] = {"results": "r", "receipts": "c"}
_KINDS: dict[str, Kind] = {code: kind for kind, code in _CODES.items()}


class TornRecord(ValueError):
    """A spool file that does not hold what was written to it."""


class SpoolInUse(RuntimeError):
    """Another process has this spool folder."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A Kafka record as it will be produced."""

    topic: str
    key: bytes
    headers: tuple[tuple[str, bytes], ...]
    value: bytes


class _Head(msgspec.Struct, frozen=True):
    topic: str
    key: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One batch in the spool. `order` grows with every batch, over restarts too."""

    order: int
    kind: Kind
    incarnation: int
    round_id: int
    batch_seq: int
    rows: int
    size_bytes: int

    @property
    def name(self) -> str:
        """The file's name, and all we need to know of it."""
        code = _CODES[self.kind]
        return f"{self.order:016d}-{code}-{self.incarnation}-{self.round_id}-{self.batch_seq}-{self.rows}.batch"


def entry_of(name: str, size_bytes: int) -> Entry | None:
    """The entry that a file's name stands for; None for a file that is not ours."""
    stem, dot, suffix = name.partition(".")
    parts = stem.split("-")
    numbers = parts[:1] + parts[2:]
    if dot + suffix != ".batch" or len(parts) != 6 or parts[1] not in _KINDS or not all(n.isdigit() for n in numbers):
        return None
    order, incarnation, round_id, batch_seq, rows = map(int, numbers)
    return Entry(
        order=order,
        kind=_KINDS[parts[1]],
        incarnation=incarnation,
        round_id=round_id,
        batch_seq=batch_seq,
        rows=rows,
        size_bytes=size_bytes,
    )


def pack(envelope: Envelope) -> bytes:
    """A record as the bytes of its file."""
    head = msgspec.msgpack.encode(_Head(envelope.topic, envelope.key, envelope.headers))
    body = len(head).to_bytes(4, "big") + head + envelope.value
    return _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body


def unpack(data: bytes) -> Envelope:
    """The record of a file's bytes. Raises TornRecord."""
    if len(data) < _PREFIX_BYTES or data[:4] != _MAGIC:
        raise TornRecord(f"{len(data)} bytes without the beginning of a spool record")
    if zlib.crc32(data[8:]) != int.from_bytes(data[4:8], "big"):
        raise TornRecord("checksum differs")
    length = int.from_bytes(data[8:12], "big")
    head = msgspec.msgpack.decode(data[12 : 12 + length], type=_Head)
    return Envelope(topic=head.topic, key=head.key, headers=head.headers, value=data[12 + length :])


class Spool:
    """The folder of unacknowledged batches; at most one process has it."""

    def __init__(self, *, folder: Path, max_bytes: int, window: int = 16) -> None:
        """Open (or make) the folder and list what the last run left. Raises SpoolInUse, OSError."""
        self.window = window
        self._folder = folder / "batches"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder / "lock")
        self._max_bytes = max_bytes
        self._entries = {entry.order: entry for entry in _listed(self._folder)}
        self._held = set(list(self._entries)[:window])
        self._next_order = max(self._entries, default=0) + 1
        self.size_bytes = sum(entry.size_bytes for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: Entry) -> bool:
        return entry.order in self._entries

    def entries(self) -> list[Entry]:
        """All batches, oldest first."""
        return list(self._entries.values())

    def append(
        self, *, kind: Kind, incarnation: int, round_id: int, batch_seq: int, rows: int, envelope: Envelope
    ) -> Entry:
        """Store one batch. Raises OSError. The caller then lets `excess` go."""
        data = pack(envelope)
        entry = Entry(
            order=self._next_order,
            kind=kind,
            incarnation=incarnation,
            round_id=round_id,
            batch_seq=batch_seq,
            rows=rows,
            size_bytes=len(data),
        )
        self._next_order += 1
        _write_whole(self._folder / entry.name, data)
        self._entries[entry.order] = entry
        self.size_bytes += entry.size_bytes
        return entry

    def read(self, entry: Entry) -> Envelope:
        """The record of a batch. Raises TornRecord."""
        try:
            return unpack((self._folder / entry.name).read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise TornRecord(str(error)) from error

    def hold(self, entry: Entry) -> None:
        """The batch may from now on be on its way: it is not evicted any more."""
        self._held.add(entry.order)

    def remove(self, entry: Entry) -> None:
        """The batch has arrived, or is given up."""
        if self._entries.pop(entry.order, None) is None:
            return
        self._held.discard(entry.order)
        self.size_bytes -= entry.size_bytes
        (self._folder / entry.name).unlink(missing_ok=True)

    def excess(self) -> list[Entry]:
        """The oldest batches that must go to be within the bound, none that may be on its way. Removes nothing."""
        over_bytes = self.size_bytes - self._max_bytes
        chosen: list[Entry] = []
        if over_bytes <= 0:
            return chosen
        for entry in self._entries.values():
            if over_bytes <= 0:
                break
            if entry.order not in self._held:
                chosen.append(entry)
                over_bytes -= entry.size_bytes
        return chosen

    def close(self) -> None:
        """Give the folder back."""
        os.close(self._lock)


def _listed(folder: Path) -> list[Entry]:
    entries = []
    for file in os.scandir(folder):
        entry = entry_of(file.name, file.stat().st_size)
        if entry is not None:
            entries.append(entry)
        elif file.name.endswith(".part"):
            Path(file.path).unlink()
    return sorted(entries, key=lambda e: e.order)


def _write_whole(path: Path, data: bytes) -> None:
    part = f"{path}.part"
    try:
        with open(part, "wb", buffering=0) as file:  # noqa: PTH123 (on the hot path)
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, "short write", part)
        os.replace(part, path)  # noqa: PTH105
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise SpoolInUse(f"{path}: another agent runs on this spool folder") from error
        raise
    return descriptor
