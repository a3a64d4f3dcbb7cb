"""Decides what may run: pure checks over tokens, no engine, no I/O.

For both accounts: one statement at a time; nothing that reads or writes outside the data folder (table functions
and engines by allow-list, INTO OUTFILE, INFILE, the `default` database, which shows local files as tables); nothing
that stops the engine. Backups go to one folder, by the writer. For the reader besides: reading statements only, the
product's database and the system tables that clients ask for, and settings from a list.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from kpatrol.endpoint.sql_tokens import Refused, Token, tokens, with_parameters

READER_STATEMENTS = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"})
WRITER_STATEMENTS = READER_STATEMENTS | frozenset(
    {"INSERT", "CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "EXCHANGE", "OPTIMIZE", "DELETE", "CHECK", "KILL"}
    | {"UNDROP", "SYSTEM", "VALUES", "FROM"}
)
CREATABLE = frozenset({"TABLE", "DATABASE", "VIEW", "MATERIALIZED", "FUNCTION"})
CREATE_PREFIXES = frozenset({"OR", "REPLACE", "TEMPORARY"})
SYSTEM_STATEMENTS = frozenset({"FLUSH", "SYNC", "STOP", "START", "DROP", "CLEAR", "WAIT", "REFRESH", "RELOAD"})
# Table functions that make their rows from their arguments alone.
TABLE_FUNCTIONS = frozenset(
    {"numbers", "numbers_mt", "zeros", "zeros_mt", "primes", "generateseries", "generate_series", "generaterandom"}
    | {"values", "sqlstandardvalues", "null", "view", "viewexplain", "viewifpermitted", "format"}
)
# Functions that read files, call models or ask the network.
FUNCTIONS_REFUSED = frozenset(
    {"file", "eval", "reversednsquery", "catboostevaluate", "disk", "python"}
    | {"hascolumnintable", "joinget", "joingetornull"}
)
AI_FUNCTION = re.compile(r"ai[A-Z_]|AI[A-Z]")
ENGINES = re.compile(
    r"(Replicated|Shared)?(Replacing|Aggregating|Summing|Collapsing|VersionedCollapsing|Coalescing)?MergeTree"
    r"|Memory|Null|Log|TinyLog|StripeLog|Set|Join|Atomic|Replicated|View|MaterializedView|Distributed"
)
READER_SYSTEM_TABLES = frozenset(
    {"databases", "tables", "columns", "functions", "settings", "formats", "data_type_families", "one", "numbers"}
    | {"build_options", "time_zones", "keywords", "parts", "parts_columns", "table_engines", "table_functions"}
    | {"metrics", "events", "asynchronous_metrics", "merges", "macros", "clusters", "collations", "dictionaries"}
    | {"contributors", "licenses", "aggregate_function_combinators", "data_skipping_indices", "views", "completions"}
)
# What a reader may set: how a result is made and written, and lower limits; nothing that opens a door.
READER_SETTINGS = re.compile(
    r"max_execution_time|max_threads|max_block_size|max_result_rows|max_rows_to_read|max_bytes_to_read"
    r"|result_overflow_mode|read_overflow_mode|timeout_overflow_mode|(output|input)_format_\w+|format_\w+|date_time_\w+"
    r"|additional_table_filters|additional_result_filter|final|join_use_nulls|group_by_use_nulls|extremes"
    r"|session_timezone|wait_end_of_query|send_progress_in_http_headers|http_headers_progress_interval_ms"
    r"|prefer_column_name_to_alias|use_query_cache|query_cache_\w+|aggregate_functions_null_for_empty"
    r"|cast_\w+|enable_analyzer|limit|offset|transform_null_in|union_default_mode|log_queries|log_comment"
    r"|allow_experimental_analyzer|low_cardinality_\w+|optimize_\w+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the engine has, read from its system tables: names in lower case, databases and tables as they are.

    `base_tables` are the tables of `database` that are no views: materialized views and hidden tables among them.
    `backups` is whether there is a folder for them.
    """

    table_functions: frozenset[str]
    formats: Mapping[str, str]
    databases: frozenset[str]
    database: str
    base_tables: frozenset[str] = frozenset()
    backups: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement that may run. `format` is its own trailing FORMAT, taken out of `sql` ('' if none).

    `lifted` are settings of the reader's trailing SETTINGS clause (name, SQL literal), also taken out. For an insert
    with data, `sql` ends before FORMAT and `data` is what follows in the statement's own text. `tokens` are those of
    the whole text, identifier parameters filled in.
    """

    sql: str
    verb: str
    format: str = ""
    lifted: Mapping[str, str] = field(default_factory=dict)
    tokens: Sequence[Token] = ()
    inserts_data: bool = False
    data: bytes = b""
    is_ddl: bool = False


def check(*, text: bytes, parameters: Mapping[str, str], known: Known, reader: bool) -> Statement:
    """The statement in `text`, ready to run for this account; raises Refused with ClickHouse's error code.

    `text` is what the client sent: UTF-8 SQL, for an insert followed by its data in any encoding.
    """
    # latin-1 keeps offsets equal to bytes, so binary data behind an INSERT head is no trouble.
    sql = text.decode("latin-1")
    insert = _insert_with_data(sql, known)
    stream = insert[0] if insert else list(_single(sql))
    if not stream:
        raise Refused("the statement is empty", code=62, name="SYNTAX_ERROR", status=400)
    verb = next((t for t in stream if not t.is_mark("(")), stream[0]).upper
    if not reader and verb in ("BACKUP", "RESTORE"):
        _check_backup(stream, verb, known)
        return Statement(sql=_utf8(sql[stream[0].start : stream[-1].end]), verb=verb, is_ddl=verb == "RESTORE")
    seen = with_parameters(stream, parameters)
    _check_common(seen, verb, known)
    if reader:
        _check_reader(seen, verb, known)
    else:
        _check_writer(seen, verb)
    if insert:
        _, head_end, fmt, data_start = insert
        return Statement(sql=_utf8(sql[:head_end]), verb=verb, format=fmt, inserts_data=True, data=text[data_start:])
    return replace(_cut_tail(sql, stream, verb, known, reader), tokens=tuple(seen))


def _check_backup(stream: Sequence[Token], verb: str, known: Known) -> None:
    """Only the product's database as a whole, and only to or from a name in the folder of backups."""
    way = "TO" if verb == "BACKUP" else "FROM"
    words = [t.text if t.kind in ("word", "quoted", "mark") else "" for t in stream]
    said = [verb, "DATABASE", known.database, way, "File", "(", "", ")"]
    named = len(stream) == len(said) and re.fullmatch(r"'\w[\w.-]*'", stream[6].text, re.ASCII)
    if not named or [w.upper() for w in words[:2]] != said[:2] or words[2] != said[2]:
        raise Refused(f"{verb} is available as: {verb} DATABASE {known.database} {way} File('NAME')")
    if words[3].upper() != way or words[4:] != said[4:]:
        raise Refused(f"{verb} is available as: {verb} DATABASE {known.database} {way} File('NAME')")
    if not known.backups:
        raise Refused(f"{verb} needs a folder: start the endpoint with --backups FOLDER")


def _single(sql: str) -> list[Token]:
    found = list(tokens(sql))
    while found and found[-1].is_mark(";"):
        found.pop()
    if any(t.is_mark(";") for t in found):
        raise Refused("one statement at a time", code=62, name="SYNTAX_ERROR", status=400)
    return found


def _insert_with_data(sql: str, known: Known) -> tuple[list[Token], int, str, int] | None:
    """(head tokens, end of head, format, start of data) of an `INSERT ... FORMAT x`, read no further than that."""
    head: list[Token] = []
    depth = 0
    stream = tokens(sql)
    for token in stream:
        if not head and token.upper != "INSERT":
            return None
        depth += token.is_mark("(") - token.is_mark(")")
        if depth == 0 and token.upper in ("SELECT", "WITH", "VALUES", "INFILE") and head:
            return None
        if depth == 0 and token.upper == "FORMAT" and len(head) > 2:
            name = next(stream, None)
            if name is None or name.text.lower() not in known.formats:
                shown = name.text if name else ""
                raise Refused(f"Unknown format {shown}", code=73, name="UNKNOWN_FORMAT", status=400)
            fmt = known.formats[name.text.lower()]
            if fmt == "Values":
                return None
            return head, token.start, fmt, _data_start(sql, name.end)
        if token.is_mark(";"):
            return None
        head.append(token)
    return None


def _data_start(sql: str, position: int) -> int:
    """Data begin after the format's name, spaces and one line end."""
    while position < len(sql) and sql[position] in " \t\r":
        position += 1
    return position + 1 if position < len(sql) and sql[position] in "\n;" else position


def _check_common(stream: Sequence[Token], verb: str, known: Known) -> None:
    for token, following in zip(stream, [*stream[1:], Token("mark", "", 0, 0)], strict=True):
        pair = (token.upper, following.upper)
        if pair in (("INTO", "OUTFILE"), ("FROM", "INFILE"), ("INTO", "FUNCTION")):
            raise Refused(f"{' '.join(pair)} is not available here")
        if token.is_name and following.is_mark("("):
            _check_call(token.text, known)
        if token.upper == "APPLY":
            _check_applied(stream, token, known)
        if token.is_name and following.is_mark(".") and token.text.lower() == "default":
            raise Refused("the database `default` shows local files and is not available here")
    if verb == "EXPLAIN" and any(t.upper in ("INSERT", "CREATE") for t in stream[1:3]):
        raise Refused("EXPLAIN is for queries")


def _check_applied(stream: Sequence[Token], apply: Token, known: Known) -> None:
    """`* APPLY(f)` calls f without a parenthesis behind its name."""
    after = [t for t in stream if t.start >= apply.end][:2]
    for token in after:
        if token.is_name:
            _check_call(token.text, known)


def _check_call(name: str, known: Known) -> None:
    lower = name.lower()
    outside = lower in known.table_functions and lower not in TABLE_FUNCTIONS
    if outside or lower in FUNCTIONS_REFUSED or AI_FUNCTION.match(name):
        raise Refused(f"{name}() reaches outside the data folder and is not available here")


def _check_reader(stream: Sequence[Token], verb: str, known: Known) -> None:
    if verb not in READER_STATEMENTS:
        raise Refused("this account reads only", code=164, name="READONLY")
    allowed = {known.database, "system", "information_schema", "INFORMATION_SCHEMA"}
    elsewhere = known.databases - allowed
    for index, token in enumerate(stream[:-2]):
        if not (token.is_name and stream[index + 1].is_mark(".")):
            continue
        if token.text in elsewhere:
            raise Refused(f"this account reads the database {known.database} only")
        table = stream[index + 2]
        if token.text == "system" and table.is_name and table.text not in READER_SYSTEM_TABLES:
            raise Refused(f"this account may not read system.{table.text}")
    if verb == "SHOW":
        for before, token in pairwise(stream):
            if before.upper in ("FROM", "IN", "DATABASE") and token.is_name and token.text in elsewhere | {"default"}:
                raise Refused(f"this account reads the database {known.database} only")
    if verb == "SHOW" and any(t.upper in ("PROCESSLIST", "GRANTS", "USERS", "ACCESS") for t in stream):
        raise Refused("this account may not see accounts or other people's queries")


def _check_writer(stream: Sequence[Token], verb: str) -> None:
    if verb not in WRITER_STATEMENTS:
        shown = verb or stream[0].text
        raise Refused(f"{shown} is not available here (settings go with each request, there is no session)")
    rest = [t.upper for t in stream[1:] if t.upper not in CREATE_PREFIXES]
    second = rest[0] if rest else ""
    if verb == "CREATE" and second not in CREATABLE:
        raise Refused(f"CREATE {second} is not available here")
    if verb == "SYSTEM" and second not in SYSTEM_STATEMENTS:
        raise Refused(f"SYSTEM {second} is not available here")
    if verb in ("CREATE", "ALTER"):
        _check_engines(stream)


def _check_engines(stream: Sequence[Token]) -> None:
    for index, token in enumerate(stream):
        if token.upper != "ENGINE":
            continue
        after = [t for t in stream[index + 1 : index + 3] if not t.is_mark("=")]
        explicit = index + 1 < len(stream) and stream[index + 1].is_mark("=")
        name = after[0] if after else None
        if name is None or not name.is_name or (not explicit and name.upper in ("FROM", "AS")):
            continue
        if not ENGINES.fullmatch(name.text):
            raise Refused(f"ENGINE = {name.text} is not available here: only tables in the data folder are")


def _cut_tail(sql: str, stream: list[Token], verb: str, known: Known, reader: bool) -> Statement:
    """Takes a trailing FORMAT, and for the reader a trailing SETTINGS, out of the text."""
    end = stream[-1].end
    rest = list(stream)
    lifted: dict[str, str] = {}
    fmt = ""
    if reader:
        rest, end, lifted = _lift_settings(sql, rest, end)
    if len(rest) > 2 and rest[-2].upper == "FORMAT" and rest[-1].text.lower() in known.formats:
        fmt = known.formats[rest[-1].text.lower()]
        end = rest[-2].start
        rest = rest[:-2]
        if reader:
            rest, end, more = _lift_settings(sql, rest, end)
            lifted = {**more, **lifted}
    if reader:
        _check_no_settings(rest)
    return Statement(
        sql=_utf8(sql[stream[0].start : end]),
        verb=verb,
        format=fmt,
        lifted=lifted,
        is_ddl=verb in ("CREATE", "DROP", "RENAME", "UNDROP"),
    )


def _check_no_settings(stream: Sequence[Token]) -> None:
    """The engine applies SETTINGS of a subquery even where the session may not change any."""
    for token, name, equals in zip(stream, stream[1:], stream[2:], strict=False):
        if token.upper == "SETTINGS" and name.is_name and equals.is_mark("="):
            raise Refused("this account may give SETTINGS at the end of a statement only", code=164, name="READONLY")


def _lift_settings(sql: str, stream: list[Token], end: int) -> tuple[list[Token], int, dict[str, str]]:
    depth = 0
    for index in range(len(stream) - 1, 0, -1):
        token = stream[index]
        depth += token.is_mark(")") - token.is_mark("(")
        if depth < 0:
            break
        if depth == 0 and token.upper == "SETTINGS":
            lifted = _assignments(sql, stream[index + 1 :])
            if lifted is None:
                break
            return stream[:index], token.start, lifted
    return stream, end, {}


def _assignments(sql: str, stream: list[Token]) -> dict[str, str] | None:
    """`a = 1, b = {'t': 'x'}` as {name: literal}; None when it is anything else."""
    out: dict[str, str] = {}
    rest = stream
    while rest:
        if len(rest) < 3 or rest[0].kind != "word" or not rest[1].is_mark("="):
            return None
        size = _literal_size(rest[2:])
        after = rest[2 + size :]
        if size == 0 or (after and not (after[0].is_mark(",") and len(after) > 1)):
            return None
        check_reader_setting(rest[0].text)
        out[rest[0].text] = _utf8(sql[rest[2].start : rest[1 + size].end])
        rest = after[1:]
    return out or None


def _literal_size(stream: list[Token]) -> int:
    """How many tokens at the beginning are one literal (number, string, word, map, array); 0 if none."""
    if stream[0].kind != "mark":
        return 0 if stream[0].kind == "quoted" else 1
    if stream[0].text in "+-":
        return 2 if len(stream) > 1 and stream[1].kind == "number" else 0
    depth = 0
    for index, token in enumerate(stream):
        if token.kind == "mark" and token.text not in "{}[]:,+-":
            return 0
        depth += (token.kind == "mark" and token.text in "{[") - (token.kind == "mark" and token.text in "}]")
        if depth == 0:
            return index + 1
    return 0


def check_reader_setting(name: str) -> None:
    """Raises Refused when the reader may not set this."""
    if not READER_SETTINGS.fullmatch(name):
        raise Refused(f"this account may not change the setting {name}", code=164, name="READONLY")


def _utf8(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"the statement is not UTF-8: {error}", code=62, name="SYNTAX_ERROR", status=400) from error
