"""Numbers as people read them in a verdict's `why` and in findings."""

from collections.abc import Sequence

SHOWN = 3


def percent(share: float) -> str:
    """0.9987 → "99.87 %"; never rounded up to 100 %."""
    return f"{share * 100:.6g} %" if share > 0.999 else f"{share * 100:.4g} %"


def delay(us: float) -> str:
    """Microseconds with a unit that keeps three digits or so."""
    if us < 1000:
        return f"{us:.0f} µs"
    return f"{us / 1000:.4g} ms" if us < 10_000_000 else f"{us / 1_000_000:.4g} s"


def some(items: Sequence[str], *, shown: int = SHOWN) -> str:
    """The first few, and how many more."""
    more = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {more} more" if more > 0 else "")


def plural(count: int, noun: str) -> str:
    """ "1 pair", "2 pairs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
