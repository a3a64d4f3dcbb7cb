"""Blocks written by hand, read back by an independent reader of the format."""

from kpatrol.endpoint import native


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def read_text(data: bytes, at: int) -> tuple[str, int]:
    size, at = read_varint(data, at)
    return data[at : at + size].decode(), at + size


def test_varint_of_every_length() -> None:
    for value in (0, 1, 127, 128, 300, 2**32, 2**63):
        assert read_varint(native.varint(value), 0) == (value, len(native.varint(value)))


def test_a_header_block_has_names_and_types_and_no_rows() -> None:
    columns = [("a", "UInt8"), ("µ" * 200, "Map(LowCardinality(String), String)")]
    block = native.header_block(columns)
    count, at = read_varint(block, 0)
    rows, at = read_varint(block, at)
    assert (count, rows) == (2, 0)
    found = []
    for _ in range(count):
        name, at = read_text(block, at)
        kind, at = read_text(block, at)
        found.append((name, kind))
    assert found == columns
    assert at == len(block)


def test_hello_is_in_the_newer_layout_and_says_revision_0() -> None:
    block = native.hello_block(name="kpatrol", version="26.9.2.1", timezone="Etc/UTC")
    assert block[:8] == bytes.fromhex("010002ffffffff00")
    count, at = read_varint(block, 8)
    rows, at = read_varint(block, at)
    assert (count, rows) == (4, 1)
    values: list[str | int] = []
    for _ in range(count):
        _, at = read_text(block, at)
        kind, at = read_text(block, at)
        assert block[at] == 0
        at += 1
        if kind == "UInt32":
            values.append(int.from_bytes(block[at : at + 4], "little"))
            at += 4
        else:
            text, at = read_text(block, at)
            values.append(text)
    assert values == ["kpatrol", "26.9.2.1", 0, "Etc/UTC"]
    assert at == len(block)


def test_only_that_query_at_that_revision_is_the_hello() -> None:
    assert native.is_hello("SELECT displayName(), version(), revision(), timezone()", 54460)
    assert native.is_hello("SELECT displayName(),\n version(), revision(), timezone() ", 54460)
    assert not native.is_hello("SELECT displayName(), version(), revision(), timezone()", 0)
    assert not native.is_hello("SELECT version()", 54460)


def test_columns_of_json() -> None:
    assert native.columns_of_json(b'{"meta": [{"name": "x", "type": "UInt8"}], "data": []}') == [("x", "UInt8")]
