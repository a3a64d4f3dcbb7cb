"""The expander against the data source's documented examples."""

from datetime import UTC, datetime

import pytest

from dashboards.macros import ALL, Range, UnknownMacro, expand

# 1415792726.123 and 1447328726.456, the documentation's own times.
ASKED = Range(
    since=datetime.fromtimestamp(1415792726.123, UTC),
    until=datetime.fromtimestamp(1447328726.456, UTC),
    interval_s=20,
    chosen={"one": ["a'b"], "two": ["x", "y"], "all": [ALL]},
    options={"all": ["p", "q"]},
)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("$__timeFilter(c)", "c >= toDateTime(1415792726) AND c <= toDateTime(1447328726)"),
        (
            "$__timeFilter_ms(c)",
            "c >= fromUnixTimestamp64Milli(1415792726123) AND c <= fromUnixTimestamp64Milli(1447328726456)",
        ),
        ("$__dateFilter(c)", "c >= toDate('2014-11-12') AND c <= toDate('2015-11-12')"),
        (
            "$__dateTimeFilter(d, t)",
            "(d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')) AND "
            "(t >= toDateTime(1415792726) AND t <= toDateTime(1447328726))",
        ),
        ("$__fromTime", "toDateTime(1415792726)"),
        ("$__toTime", "toDateTime(1447328726)"),
        ("$__fromTime_ms", "fromUnixTimestamp64Milli(1415792726123)"),
        ("$__toTime_ms", "fromUnixTimestamp64Milli(1447328726456)"),
        ("$__timeInterval(c)", "toStartOfInterval(toDateTime(c), INTERVAL 20 second)"),
        ("$__timeInterval_ms(c)", "toStartOfInterval(toDateTime64(c, 3), INTERVAL 20000 millisecond)"),
        ("greatest($__interval_s, 60)", "greatest(20, 60)"),
        ("$__conditionalAll(a IN (${two:singlequote}, 'z'), $two)", "a IN ('x','y', 'z')"),
        ("$__conditionalAll(a IN (${all:singlequote}), $all)", "1=1"),
        ("${one:singlequote}", "'a\\'b'"),
        ("${all:singlequote}", "'p','q'"),
        ("$__timeFilter(f(c))", "f(c) >= toDateTime(1415792726) AND f(c) <= toDateTime(1447328726)"),
        ("$__timeFilter{c}", "c >= toDateTime(1415792726) AND c <= toDateTime(1447328726)"),
    ],
)  # fmt: skip
def test_a_macro_becomes_what_is_documented(written: str, sent: str) -> None:
    assert expand(written, ASKED) == sent


@pytest.mark.parametrize(
    "written",
    ["$__nonsense(c)", "${nobody}", "$__conditionalAll(a, ${two})", "$__conditionalAll(a, $nobody)", "$__timeFilter(c"],
)  # fmt: skip
def test_what_nobody_expands_is_an_error(written: str) -> None:
    with pytest.raises(UnknownMacro):
        expand(written, ASKED)
