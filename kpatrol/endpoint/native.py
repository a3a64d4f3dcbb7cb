"""ClickHouse's Native block format, as far as the engine does not write it itself: pure functions over bytes.

A server answers a query without rows with one header block (names and types), the engine with no bytes at all; and a
client that speaks a newer protocol revision asks one question in that revision's layout before it learns ours.
"""

import json
from collections.abc import Sequence

# clickhouse-go introduces itself with this query and reads the answer at the revision it asked for.
HELLO = "SELECT displayName(), version(), revision(), timezone()"
# Block info of revisions since 51903: is_overflows = 0, bucket_num = -1, end.
_BLOCK_INFO = bytes((1, 0, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0))
# Since 54454 a byte after each column's type says whether its serialization is a custom one.
_CUSTOM_SERIALIZATION_REVISION = 54454


def varint(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    """A string with its length before it."""
    raw = value.encode()
    return varint(len(raw)) + raw


def header_block(columns: Sequence[tuple[str, str]]) -> bytes:
    """A block of no rows with these (name, type) columns, in the layout of revision 0."""
    return varint(len(columns)) + varint(0) + b"".join(text(name) + text(kind) for name, kind in columns)


def columns_of_json(body: bytes) -> list[tuple[str, str]]:
    """(name, type) of the columns of an answer in FORMAT JSON."""
    return [(c["name"], c["type"]) for c in json.loads(body)["meta"]]


def is_hello(sql: str, revision: int) -> bool:
    """Whether this is the first question of a client that speaks a newer revision than we answer in."""
    return revision >= _CUSTOM_SERIALIZATION_REVISION and "".join(sql.split()) == "".join(HELLO.split())


def hello_block(*, name: str, version: str, timezone: str) -> bytes:
    """The answer to HELLO in the asked revision's layout. `revision()` is 0: everything after is plain Native."""
    columns = (
        ("displayName()", "String", text(name)),
        ("version()", "String", text(version)),
        ("revision()", "UInt32", bytes(4)),
        ("timezone()", "String", text(timezone)),
    )
    body = b"".join(text(column) + text(kind) + b"\0" + value for column, kind, value in columns)
    return _BLOCK_INFO + varint(len(columns)) + varint(1) + body
