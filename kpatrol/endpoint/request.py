"""What an HTTP request asks for: URL, headers and body in ClickHouse's conventions. Pure."""

import gzip
import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from kpatrol.endpoint.sql_tokens import Refused

# Words of the HTTP interface itself; every other URL parameter is a setting or a `param_`.
NOT_SETTINGS = frozenset(
    {"query", "database", "default_format", "user", "password", "quota_key", "query_id", "session_id", "role"}
    | {"session_timeout", "session_check", "close_session", "stacktrace", "buffer_size", "compress", "decompress"}
    | {"client_protocol_version", "enable_http_compression", "http_zlib_compression_level", "x-clickhouse-format"}
    | {"wait_end_of_query", "send_progress_in_http_headers", "http_headers_progress_interval_ms"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request's statement (SQL, then data for an insert), parameters and settings."""

    text: bytes
    parameters: Mapping[str, str]
    settings: Mapping[str, str]
    database: str
    query_id: str
    default_format: str
    revision: int


def asked(
    *, url: Mapping[str, str], form: Mapping[str, str], headers: Mapping[str, str], body: bytes, default_id: str
) -> Asked:
    """Reads a request. The SQL is `query` (URL or form) and then the body, as a server joins them."""
    merged = {**url, **form}
    for flag, code in (("compress", 344), ("decompress", 344)):
        if merged.get(flag, "0") not in ("", "0", "false"):
            raise Refused(
                f"{flag}=1 (native blocks) is not supported", code=code, name="SUPPORT_IS_DISABLED", status=501
            )
    sql = merged.get("query", "").encode()
    text = sql + b"\n" + body if sql and body else sql or body
    return Asked(
        text=text,
        parameters={name[6:]: value for name, value in merged.items() if name.startswith("param_")},
        settings={n: v for n, v in merged.items() if n not in NOT_SETTINGS and not n.startswith("param_")},
        database=merged.get("database") or headers.get("X-ClickHouse-Database", ""),
        query_id=merged.get("query_id") or default_id,
        default_format=merged.get("default_format") or headers.get("X-ClickHouse-Format", "") or "TabSeparated",
        revision=_number(merged.get("client_protocol_version", "0")),
    )


def _number(value: str) -> int:
    return int(value) if value.isdigit() else 0


def _lz4(body: bytes, size: int) -> bytes:
    import lz4.frame  # type: ignore[import-untyped]

    out: bytes = lz4.frame.LZ4FrameDecompressor().decompress(body, size)
    return out


def _gzip(body: bytes, size: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
        return stream.read(size)


def _deflate(body: bytes, size: int) -> bytes:
    # Both readings of "deflate" are in use: with zlib's head and without.
    window = zlib.MAX_WBITS if body[:1] == b"\x78" else -zlib.MAX_WBITS
    return zlib.decompressobj(window).decompress(body, size)


def _zstd(body: bytes, size: int) -> bytes:
    from backports import zstd

    try:
        with zstd.ZstdFile(io.BytesIO(body)) as stream:
            return stream.read(size)
    except zstd.ZstdError as error:
        raise OSError(str(error)) from error


DECODERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "lz4": _lz4,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}


def decompressed(body: bytes, *, encoding: str, limit_bytes: int) -> bytes:
    """The body without its Content-Encoding. Raises Refused on an unknown one (415) and past the limit (413)."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in DECODERS:
        raise Refused(
            f"Content-Encoding {encoding} is not supported", code=374, name="UNKNOWN_COMPRESSION_METHOD", status=415
        )
    try:
        out = DECODERS[encoding](body, limit_bytes + 1)
    except (OSError, EOFError, RuntimeError, zlib.error) as error:
        raise Refused(f"the body is not {encoding}: {error}", code=271, name="CANNOT_DECOMPRESS", status=400) from error
    if len(out) > limit_bytes:
        raise too_large(limit_bytes)
    return out


def too_large(limit_bytes: int) -> Refused:
    """The refusal of a body past the limit."""
    return Refused(f"the body is larger than {limit_bytes} bytes", code=307, name="TOO_MANY_BYTES", status=413)


def header_safe(text: str) -> str:
    """A value that may stand in a header: printable ASCII, percent-encoded where it is not."""
    return text if text.isascii() and text.isprintable() else quote(text)
