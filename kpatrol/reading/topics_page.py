"""docs/topics.md, made from the catalogue so that it cannot drift: `python -m kpatrol.reading.topics_page`."""

from topics.catalogue import TOPICS
from topics.columns import COLUMNS
from topics.probe_results import SCHEMA

HEAD = """# Topics

Made from the code by `python -m kpatrol.reading.topics_page`; a test holds it equal.
`kpatrol topics apply` creates the topics, grows the two bulk ones, aligns settings, and refuses what it
must not touch. Every topic has a dead-letter topic `<name>-dlq`.

| topic | partitions | retention | clean-up | writers | readers | what |
|---|---|---|---|---|---|---|
"""
COLUMNS_HEAD = """
## Columns of a request

A batch is an Arrow IPC stream with one record batch; what all its rows share, and the table of
targets, is JSON in the schema's metadata under `kpatrol`. `scope` says where a column of the `probe` table comes from.

| column | scope | Arrow type in a batch | OpenTelemetry attribute | unit |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    import importlib

    lines = []
    for topic in TOPICS.values():
        module = importlib.import_module(f"topics.{topic.name.removesuffix('-v1').replace('-', '_')}")
        what = (module.__doc__ or "").splitlines()[0].split(": ", 1)[1]
        hours = topic.retention_s // 3600
        lines.append(
            f"| `{topic.name}` | {topic.partitions}{'+' if topic.may_grow else ''} | {hours} h | {topic.cleanup} | "
            f"{', '.join(topic.writers)} | {', '.join(topic.readers)} | {what} |"
        )
    columns = []
    for column in COLUMNS:
        known = column.name in SCHEMA.names and column.scope == "row"
        kind = str(SCHEMA.field(column.name).type) if known else ""
        attribute = f"`{column.attribute}`" if column.attribute else ""
        columns.append(f"| `{column.name}` | {column.scope} | {kind} | {attribute} | {column.unit} |")
    return HEAD + "\n".join(lines) + "\n" + COLUMNS_HEAD + "\n".join(columns) + "\n"


if __name__ == "__main__":
    print(page(), end="")
