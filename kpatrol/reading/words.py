"""Numbers as people read them. Pure."""


def delay(value_us: float | int | None) -> str:
    """Microseconds in the unit that fits: `312 µs`, `4.1 ms`, `1.20 s`; a dash where there is none."""
    if value_us is None:
        return "–"
    if value_us < 1_000:
        return f"{value_us:.0f} µs"
    if value_us < 1_000_000:
        return f"{value_us / 1_000:.1f} ms"
    return f"{value_us / 1_000_000:.2f} s"


def percent(rate: float | None) -> str:
    """A share with as many digits as it needs: `0 %`, `2.1 %`, `0.013 %`, `100 %`."""
    if rate is None:
        return "–"
    value = rate * 100
    if value in (0, 100):
        return f"{value:.0f} %"
    if 99 < value < 100:
        return f"{value:.3g} %" if value < 99.95 else f"{value:.3f} %"
    return f"{value:.2g} %" if value >= 0.01 else f"{value:.1g} %"


def count(value: int) -> str:
    """A whole number with thin groups: `12 000`."""
    return f"{value:,}".replace(",", "\u202f")


def interval(low: float, high: float) -> str:
    """A Wilson interval in percent: `[1.7–2.6]`."""
    return f"[{low * 100:.2g}–{high * 100:.2g}]"
