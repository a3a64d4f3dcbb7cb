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
    """A share with as many digits as it needs, never rounded to none or all: `2.1 %`, `0.013 %`, `99.95 %`."""
    return "–" if rate is None else f"{_share(rate * 100)} %"


def _share(value: float) -> str:
    if value in (0, 100):
        return f"{value:.0f}"
    if value < 0.01:
        return f"{value:.1g}"
    if value < 10:
        return f"{value:.2g}"
    if value <= 99:
        return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}"
    digits = next((d for d in (1, 2, 3) if f"{value:.{d}f}" != f"{100:.{d}f}"), 4)
    return f"{value:.{digits}f}"


def count(value: int) -> str:
    """A whole number with thin groups: `12 000`."""
    return f"{value:,}".replace(",", "\u202f")


def interval(low: float, high: float) -> str:
    """A Wilson interval in percent: `[1.7–2.6]`; its ends need no more digits than say how wide it is."""
    return f"[{_end(low * 100)}–{_end(high * 100)}]"


def _end(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"
