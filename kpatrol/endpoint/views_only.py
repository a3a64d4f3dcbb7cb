"""Readers see views only: decides from the engine's own parse of a statement whether it names a base table. Pure.

`EXPLAIN AST` reads a statement as the engine will and executes nothing, so no trick of quoting lies between the two
readings. It shows no inside of `APPLY` lambdas, of `SHOW … WHERE` and of settings that hold SQL; those are checked by
their tokens, and refused where they could hide a query.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kpatrol.endpoint.sql_tokens import Refused, Token

# in, notIn, globalIn, nullIn, …: an identifier in second place is read as a table.
_IN = re.compile(r"(global)?(not)?(null)?in(ignoreset)?", re.IGNORECASE)
_WITH_SQL = ("additional_table_filters", "additional_result_filter")


@dataclass(slots=True)
class Node:
    """One line of `EXPLAIN AST` and the lines below it."""

    text: str
    children: list["Node"] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """The names that are refused: tables of `database` that are no views."""

    database: str
    tables: Collection[str]

    def holds(self, name: str) -> bool:
        """Whether `table` or `database.table` is one of them."""
        return name.removeprefix(f"{self.database}.") in self.tables


def check(*, ast: str, stream: Sequence[Token], verb: str, settings: Mapping[str, str], bases: Bases) -> None:
    """Raises Refused (497) when the statement reads a base table. `settings` are name → text or SQL literal."""
    root = parse(ast)
    named = {name for name in _tables(root) if bases.holds(name)}
    named |= _aliased(root, bases)
    if named:
        raise _refused(min(named), bases)
    _check_beside(stream, bases)
    if verb in ("SHOW", "EXISTS"):
        _check_hidden(stream, bases)
    for region in _applied(stream):
        _check_hidden(region, bases)
    for name in _WITH_SQL:
        _check_filter(settings.get(name, ""), bases)


def parse(ast: str) -> Node:
    """The tree that the indentation of `EXPLAIN AST` draws."""
    root = Node("")
    path = [root]
    for line in ast.splitlines():
        depth = len(line) - len(line.lstrip(" "))
        node = Node(re.sub(r" \(children \d+\)$", "", line.strip()))
        del path[depth + 1 :]
        path[-1].children.append(node)
        path.append(node)
    return root


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _name(node: Node, kind: str) -> str:
    return node.text.removeprefix(kind).partition(" (alias ")[0] if node.text.startswith(kind) else ""


def _tables(root: Node) -> Iterator[str]:
    """Every name in a table's place."""
    for node in _walk(root):
        if name := _name(node, "TableIdentifier "):
            yield name
        function = _name(node, "Function ")
        arguments = node.children[0].children if function and node.children else []
        if _IN.fullmatch(function) and len(arguments) > 1:
            yield _name(arguments[1], "Identifier ")


def _aliased(root: Node, bases: Bases) -> set[str]:
    """Base tables reached by another name: `WITH probe AS p SELECT 1 IN p`."""
    stands_for: dict[str, set[str]] = {}
    for node in _walk(root):
        name, _, alias = node.text.removeprefix("Identifier ").partition(" (alias ")
        if alias and node.text.startswith("Identifier "):
            stands_for.setdefault(alias.removesuffix(")"), set()).add(name)
    reached, ahead = set[str](), set(_tables(root))
    while ahead:
        reached |= ahead
        ahead = {name for known in ahead for name in stands_for.get(known, ())} - reached
    return {name for name in reached if bases.holds(name)}


def _check_beside(stream: Sequence[Token], bases: Bases) -> None:
    """A second look, by tokens: a name right behind FROM, JOIN or IN."""
    for before, word, name in zip([None, *stream], stream, stream[1:], strict=False):
        array = word.upper == "JOIN" and before is not None and before.upper == "ARRAY"
        if word.upper in ("FROM", "JOIN", "IN") and not array and name.is_name and name.text in bases.tables:
            raise _refused(name.text, bases)
    for database, dot, name in zip(stream, stream[1:], stream[2:], strict=False):
        ours = database.is_name and database.text == bases.database and dot.is_mark(".")
        if ours and name.is_name and name.text in bases.tables:
            raise _refused(name.text, bases)


def _check_hidden(region: Sequence[Token], bases: Bases) -> None:
    """For text whose parse is not shown: no query, no lambda, no name of a base table."""
    for token, following in zip(region, [*region[1:], None], strict=True):
        if token.upper in ("SELECT", "WITH") or (token.is_mark("-") and following and following.is_mark(">")):
            raise Refused("this account may not use queries or lambdas in APPLY or SHOW")
        if token.is_name and token.text in bases.tables:
            raise _refused(token.text, bases)


def _applied(stream: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """What stands behind each APPLY: its parentheses, or all the rest where there are none."""
    for index, token in enumerate(stream):
        if token.upper != "APPLY":
            continue
        depth = 0
        for end in range(index + 1, len(stream)):
            depth += stream[end].is_mark("(") - stream[end].is_mark(")")
            if depth <= 0:
                yield stream[index + 1 : end + 1 if stream[end].is_mark(")") else index + 5]
                break


def _check_filter(value: str, bases: Bases) -> None:
    """A filter may compare columns; what could read another table is refused."""
    words = re.findall(r"\w+", value)
    if re.search(r"\\[^'\"]", value) or any(word.upper() in ("SELECT", "FROM") for word in words):
        raise Refused("this account may not use queries or escape sequences in additional filters")
    base = next((word for word in words if word in bases.tables), "")
    if base and any(_IN.fullmatch(word) for word in words):
        raise _refused(base, bases)


def _refused(name: str, bases: Bases) -> Refused:
    table = name.removeprefix(f"{bases.database}.")
    return Refused(
        f"Not enough privileges: this account reads views only, and {bases.database}.{table} is a table; "
        f"SELECT name FROM system.tables WHERE database = '{bases.database}' AND engine = 'View' lists them"
    )
