"""The two forms of a schedule: "M N" in minutes, or five cron fields. Text in, value out; no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError

LENGTH_MAX = 256
_STEP = "(/0*[1-9][0-9]{0,4})?"
_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAYS = "SUN|MON|TUE|WED|THU|FRI|SAT"


def _field(value: str, *, more: str = "") -> str:
    """RE2 expression of one cron field: terms with commas between, each a value, a range or all, perhaps with steps."""
    term = rf"((\*|\?|({value})(-({value}))?){_STEP}{more})"
    return f"{term}(,{term})*"


_MINUTE = _field("0*([0-5]?[0-9])")
_HOUR = _field("0*([01]?[0-9]|2[0-3])")
_DAY = _field("0*([1-9]|[12][0-9]|3[01])", more="|LW?")
_MONTH = _field(f"0*([1-9]|1[0-2])|{_MONTHS}")
_WEEKDAY = _field(f"0*[0-7]|{_DAYS}", more=f"|[0-7]L|([0-7]|{_DAYS})#[1-5]")
_SIMPLE = "[0-9]{1,6} 0{0,5}[1-9][0-9]{0,5}"
PATTERN = f"^({_SIMPLE}|(?i:{_MINUTE} {_HOUR} {_DAY} {_MONTH} {_WEEKDAY}))$"
# What an expression cannot say: ranges rise, and the day comes in one of the months.
_NO_SUCH_DAY = (
    r"^\\S+ \\S+ (30|31|30-31)(,(30|31|30-31))* 0*(2|FEB)(,0*(2|FEB))* [*?]\\S*$",
    r"^\\S+ \\S+ 31(,31)* (0*(2|4|6|9|11)|FEB|APR|JUN|SEP|NOV)(,(0*(2|4|6|9|11)|FEB|APR|JUN|SEP|NOV))* [*?]\\S*$",
)
_FALLING = "|".join(
    [f"{n}-0*[0-{n - 1}]" for n in range(1, 10)]
    + ["[1-9][0-9]-0*[0-9]"]
    + [f"{n}[0-9]-0*[1-{n - 1}][0-9]" for n in range(2, 6)]
    + [f"{tens}{n}-0*{tens}[0-{n - 1}]" for tens in range(1, 6) for n in range(1, 10)]
)
CEL = " && ".join(
    f"!self.upperAscii().matches('{pattern}')" for pattern in (f"(^|[ ,])0*({_FALLING})([ ,/]|$)", *_NO_SUCH_DAY)
)
_FORM = re.compile(PATTERN, re.ASCII)
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)
MINUTES_MAX = 999_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Simple:
    """First round ``delay_minute`` after the task is seen, then one every ``interval_minute``, start to start."""

    delay_minute: int
    interval_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """Five cron fields, in the controller's time zone (UTC). ``?`` has become ``*``."""

    expression: str


@lru_cache(maxsize=4096)
def parse(text: str) -> Simple | Cron | None:
    """The form of ``text``, or None where it is neither of the two."""
    if len(text) > LENGTH_MAX or _FORM.fullmatch(text) is None:
        return None
    pieces = text.split(" ")
    return _simple(pieces) if len(pieces) == 2 else _cron(pieces)


def _simple(pieces: list[str]) -> Simple:
    delay, interval = (int(piece) for piece in pieces)
    return Simple(delay_minute=delay, interval_minute=interval)


def _cron(pieces: list[str]) -> Cron | None:
    expression = " ".join(pieces).replace("?", "*").upper()
    try:
        # A well-formed expression may still name a day that never comes (30 February).
        next(CronSim(expression, _ANY_DAY))
    except (CronSimError, StopIteration, ValueError, AssertionError):
        return None
    return Cron(expression=expression)
