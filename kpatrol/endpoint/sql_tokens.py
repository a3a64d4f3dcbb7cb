"""Splits ClickHouse SQL into tokens, as its own lexer does, as far as the guard needs.

Where this lexer and the engine's could disagree (unusual quotes, control characters, unclosed strings) it refuses:
a statement that two readers may read differently cannot be checked.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["word", "quoted", "string", "number", "mark"]


class Refused(Exception):
    """A statement that this endpoint does not run. `code` is ClickHouse's number for it, `name` its name."""

    def __init__(self, message: str, *, code: int = 497, name: str = "ACCESS_DENIED", status: int = 403) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        self.status = status


@dataclass(frozen=True, slots=True)
class Token:
    """One token: `text` is unquoted for identifiers; `start` and `end` are offsets in the statement."""

    kind: Kind
    text: str
    start: int
    end: int

    @property
    def upper(self) -> str:
        """The word in capitals; empty for anything that cannot be a keyword."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def is_name(self) -> bool:
        """Whether it can name a table, a function or a database."""
        return self.kind in ("word", "quoted")

    def is_mark(self, mark: str) -> bool:
        """Whether it is this punctuation mark."""
        return self.kind == "mark" and self.text == mark


_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n\f\v]+)
    | (?P<comment>--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)
    | (?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<string>'(?:\\.|''|[^'\\])*')
    | (?P<double>"(?:\\.|""|[^"\\])*")
    | (?P<backtick>`(?:\\.|``|[^`\\])*`)
    | (?P<number>\d[\w]*(?:\.\d\w*)?(?:(?<=[eEpP])[+-]\d+)?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
    | (?P<mark>/(?!\*)|[!%&()*+,\-.:;<=>?@\[\]^{|}~])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)|(['\"`])\2", re.DOTALL)
_KINDS: Mapping[str, Kind] = {
    "string": "string",
    "heredoc": "string",
    "number": "number",
    "word": "word",
    "mark": "mark",
}


def _unquote(text: str) -> str:
    if "\\" in text and re.search(r"\\[^\\'\"`]", text):
        # \x66ile and the like: the name the engine sees is another one than the name written.
        raise Refused("identifiers with escape sequences are not accepted", code=62, name="SYNTAX_ERROR", status=400)
    return _ESCAPE.sub(lambda m: m.group(1) or m.group(2), text[1:-1])


def tokens(sql: str) -> Iterator[Token]:
    """The tokens of `sql`, comments and white space left out, lazily. Raises Refused on what it cannot read."""
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        if match is None:
            found = sql[position : position + 20]
            raise Refused(
                f"cannot read the statement at offset {position}: {found!r}",
                code=62,
                name="SYNTAX_ERROR",
                status=400,
            )
        group = match.lastgroup or ""
        if group == "tag":
            group = "heredoc"
        start, position = match.span()
        if group in ("space", "comment"):
            continue
        if group in ("double", "backtick"):
            yield Token("quoted", _unquote(match.group()), start, position)
        else:
            yield Token(_KINDS[group], match.group(), start, position)


def with_parameters(stream: list[Token], parameters: Mapping[str, str]) -> list[Token]:
    """`stream` with every `{name:Identifier}` replaced by the identifier it stands for, so that it is checked too."""
    out: list[Token] = []
    index = 0
    while index < len(stream):
        window = stream[index : index + 5]
        if (
            len(window) == 5
            and window[0].is_mark("{")
            and window[2].is_mark(":")
            and window[3].upper == "IDENTIFIER"
            and window[4].is_mark("}")
        ):
            parts = parameters.get(window[1].text, "").split(".")
            for number, part in enumerate(parts):
                if number:
                    out.append(Token("mark", ".", window[0].start, window[4].end))
                out.append(Token("quoted", part, window[0].start, window[4].end))
            index += 5
        else:
            out.append(stream[index])
            index += 1
    return out
