"""Accounts, bodies, URL parameters and error texts."""

import base64
import gzip
import zlib
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]
import pytest
from backports import zstd

from kpatrol.endpoint.auth import Account, authenticate, credentials, read_password
from kpatrol.endpoint.engine import literal, parse_error, settings_statement
from kpatrol.endpoint.request import asked, decompressed, header_safe
from kpatrol.endpoint.sql_tokens import Refused

ACCOUNTS = (
    Account(user="writer", role="writer", password="w"),
    Account(user="reader", role="reader", password="r"),
)


def test_credentials_from_each_place() -> None:
    basic = "Basic " + base64.b64encode(b"reader:a:b").decode()
    assert credentials({"Authorization": basic}, {}) == ("reader", "a:b")
    assert credentials({"X-ClickHouse-User": "u", "X-ClickHouse-Key": "k"}, {}) == ("u", "k")
    assert credentials({}, {"user": "u", "password": "p"}) == ("u", "p")
    assert credentials({"Authorization": "Basic %%%"}, {}) == ("", "")
    assert credentials({"Authorization": "Bearer x"}, {}) == ("", "")


def test_right_credentials_give_the_account_and_wrong_ones_403_516() -> None:
    assert authenticate(user="reader", password="r", accounts=ACCOUNTS).role == "reader"
    for user, password in (("reader", "w"), ("writer", ""), ("", ""), ("nobody", "r"), ("reader", "r ")):
        with pytest.raises(Refused) as caught:
            authenticate(user=user, password=password, accounts=ACCOUNTS)
        assert (caught.value.status, caught.value.code) == (403, 516)


def test_passwords_never_print_and_empty_files_are_refused(tmp_path: Path) -> None:
    assert "'w'" not in repr(ACCOUNTS)
    file = tmp_path / "p"
    file.write_text("secret\n")
    assert read_password(file) == "secret"
    file.write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        read_password(file)


def test_every_encoding_is_undone_and_bounded() -> None:
    plain = b"SELECT 1" * 1000
    packed = {
        "lz4": lz4.frame.compress(plain),
        "gzip": gzip.compress(plain),
        "deflate": zlib.compress(plain),
        "zstd": zstd.compress(plain),
        "": plain,
    }
    for encoding, body in packed.items():
        assert decompressed(body, encoding=encoding, limit_bytes=10_000) == plain
        if encoding:
            with pytest.raises(Refused) as caught:
                decompressed(body, encoding=encoding, limit_bytes=100)
            assert caught.value.status == 413


def test_unknown_and_broken_encodings_are_told_apart() -> None:
    with pytest.raises(Refused) as unknown:
        decompressed(b"x", encoding="br", limit_bytes=10)
    assert (unknown.value.status, unknown.value.code) == (415, 374)
    for encoding in ("lz4", "gzip", "deflate", "zstd"):
        with pytest.raises(Refused) as broken:
            decompressed(b"not packed at all", encoding=encoding, limit_bytes=10)
        assert broken.value.status == 400


def test_a_request_is_read_as_a_server_reads_it() -> None:
    found = asked(
        url={"query": "INSERT INTO t FORMAT CSV", "param_a": "1", "max_threads": "2", "database": "d", "query_id": "q"},
        form={"param_b": "2"},
        headers={},
        body=b"1,2",
        default_id="x",
    )
    assert found.text == b"INSERT INTO t FORMAT CSV\n1,2"
    assert found.parameters == {"a": "1", "b": "2"}
    assert found.settings == {"max_threads": "2"}
    assert (found.database, found.query_id, found.default_format) == ("d", "q", "TabSeparated")


def test_native_compression_is_refused_with_501() -> None:
    with pytest.raises(Refused) as caught:
        asked(url={"compress": "1"}, form={}, headers={}, body=b"SELECT 1", default_id="x")
    assert (caught.value.status, caught.value.code) == (501, 344)


def test_header_values_cannot_break_a_line() -> None:
    assert header_safe("abc") == "abc"
    assert "\n" not in header_safe("a\r\nX: y")
    assert header_safe("µ").isascii()


def test_engine_errors_lose_their_repetitions() -> None:
    error = parse_error(
        "Code: 115. DB::Exception: Code: 115. DB::Exception: Unknown setting 'foo'. (UNKNOWN_SETTING)"
        " (version 26.9.2.1). (UNKNOWN_SETTING)"
    )
    assert (error.code, error.name, str(error)) == (115, "UNKNOWN_SETTING", "Unknown setting 'foo'.")
    odd = parse_error("something else")
    assert (odd.code, str(odd)) == (1000, "something else")


def test_settings_are_quoted_and_names_checked() -> None:
    assert literal("a'b\\") == "'a\\'b\\\\'"
    assert settings_statement({"a": "x'y"}, {"b": "{'t': 'z'}"}) == "SET a = 'x\\'y', b = {'t': 'z'}"
    with pytest.raises(ValueError, match="name of a setting"):
        settings_statement({"a = 1, readonly": "0"}, {})
