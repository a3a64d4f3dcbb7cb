"""Figures as text: tables, and goals with whether they hold."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of the same width: the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(text.rjust(width) if i else text.ljust(width) for i, (text, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


class Goals:
    """Goals as they are found to hold or not, a line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def at_most(self, what: str, value: float, limit: float) -> None:
        """A goal that wants little."""
        self._add(value <= limit, f"{what}: {value:.2f}, at most {limit:g}")

    def at_least(self, what: str, value: float, limit: float) -> None:
        """A goal that wants much."""
        self._add(value >= limit, f"{what}: {value:.2f}, at least {limit:g}")

    def _add(self, holds: bool, text: str) -> None:
        self.lines.append(f"  {'met   ' if holds else 'MISSED'}  {text}")
