"""`python -m producers`: the agent. Reads the configuration, then builds and runs the service.

Exit codes: 0 after an orderly stop, 2 for a configuration that cannot be used, 1 for anything else.
"""

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

from topics.connection import BadConfiguration

if TYPE_CHECKING:
    from producers.config import Config
    from producers.line import Line

log = logging.getLogger("producers")

# pyarrow imports these where they are installed. An agent needs neither; together they would double its memory.
_HEAVY = frozenset({"pandas", "numpy"})
# Objects made and not yet freed before the garbage collector looks; Python's own number is 700.
_GARBAGE = 10_000


class _KeepOut:
    """Makes an installed package look as if it were not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Refuse the heavy ones, leave all else to the finders behind."""
        if fullname.partition(".")[0] in _HEAVY:
            raise ModuleNotFoundError(f"{fullname} is kept out of the agent", name=fullname)
        return None


def configure_logging(level: str) -> None:
    """One line an event to stderr, key=value. aiokafka's own repeated complaints show only at DEBUG."""
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"
    )
    if level != "DEBUG":
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def lighten() -> None:
    """Halve the memory of a process that is to be an agent; before anything imports pyarrow."""
    sys.meta_path.insert(0, _KeepOut())
    # Arrow's own allocator reserves 4 MB that batches of 40 KB have no use for; read when pyarrow is first imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def settle() -> None:
    """Take what the imports have made out of the garbage collector's sight: it stays, and looking through all of it
    stops the event loop for 10 ms and more. Once everything is imported."""
    gc.collect()
    gc.freeze()
    # Rows live until their batch is sealed and have no cycles: by default each would be looked at once or twice.
    gc.set_threshold(_GARBAGE)


def serve(line_of: "Callable[[Config], Line]", *, with_kafka: bool) -> int:
    """Run an agent on the line that `line_of` makes; its exit code."""
    lighten()

    import uvloop

    from producers.config import Config, unknown_names
    from producers.service import run

    try:
        config = Config.from_env(os.environ, with_kafka=with_kafka)
    except (BadConfiguration, OSError) as error:
        print(f"producers: {error}", file=sys.stderr)
        return 2
    configure_logging(config.log_level)
    for name in unknown_names(os.environ):
        log.warning("event=setting_not_known name=%s", name)
    line = line_of(config)
    settle()
    try:
        uvloop.run(run(config, line))
    except Exception:
        log.exception("event=agent_failed")
        return 1
    return 0


def main() -> int:
    """Run the agent by Kafka; its exit code."""
    return serve(_by_kafka, with_kafka=True)


def _by_kafka(config: "Config") -> "Line":
    from producers.line import KafkaLine

    assert config.kafka is not None
    return KafkaLine(kafka=config.kafka, client_id=f"kpatrol-agent-{config.identity.agent}")


if __name__ == "__main__":
    sys.exit(main())
