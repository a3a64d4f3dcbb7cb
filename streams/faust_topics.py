"""The only place where a `topics.Topic` becomes a Faust topic: raw bytes in and out, our own `decode`.

Records stay free of Faust, and Faust's own decoding (which commits and drops what it cannot read) is never used.
"""

from typing import Any

import faust

from topics.spec import Topic


def faust_topic(app: faust.App, topic: Topic[Any]) -> Any:
    """The topic as a channel of bytes for `app.agent`."""
    return app.topic(
        topic.name,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        allow_empty=True,
    )
