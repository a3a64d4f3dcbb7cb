"""Identities that several services compute and must compute alike."""

import hashlib

MASK64 = (1 << 64) - 1


def round_id(*, task_uid: str, number: int) -> int:
    """64-bit id of a round: the same for every leader that schedules it."""
    digest = hashlib.blake2b(f"{task_uid}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def splitmix64(value: int) -> int:
    """One step of splitmix64 (Steele, Lea, Flood 2014) on a 64-bit integer."""
    z = (value + 0x9E3779B97F4A7C15) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def span_id(*, trace_id: bytes, seq: int) -> str:
    """Span id of request `seq` (16 hex digits) from the 16-byte trace id of (round, agent): computed, not stored."""
    low = int.from_bytes(trace_id[8:], "big")
    return f"{splitmix64((low + seq) & MASK64):016x}"


def share_span_id(*, trace_id: bytes) -> str:
    """Span id of an agent's whole share of a round, the parent of its requests: that of request -1."""
    return span_id(trace_id=trace_id, seq=-1)


def traceparent(*, trace_id: bytes, seq: int) -> str:
    """W3C Trace Context header of request `seq`."""
    return f"00-{trace_id.hex()}-{span_id(trace_id=trace_id, seq=seq)}-01"


def agent_key(agent: str) -> bytes:
    """Kafka key of everything one agent says in bulk: keeps its batches in order in one partition."""
    return agent.encode()
