"""python -m streams sink|judge|alarms|hooks|rollup: one stream service, configured by KPATROL_* variables."""

import logging
import os
import sys
from typing import NoReturn

from streams import app, rollup
from streams.config import LOG_LEVELS, StreamsConfig
from topics.connection import BadConfiguration


def main(arguments: list[str]) -> NoReturn:
    """Run the named service. Exits with 2 on bad input."""
    if arguments[:1] == ["rollup"]:
        level = os.environ.get("KPATROL_LOG_LEVEL", "INFO").upper()
        _log_to_stderr("rollup", level if level in LOG_LEVELS else "INFO")
        sys.exit(rollup.main(arguments[1:], os.environ))
    if len(arguments) != 1 or arguments[0] not in app.GROUPS:
        print(f"usage: python -m streams {'|'.join((*app.GROUPS, 'rollup'))}", file=sys.stderr)
        sys.exit(2)
    try:
        config = StreamsConfig.from_env(os.environ, service=arguments[0])
    except (BadConfiguration, OSError) as error:
        print(f"streams {arguments[0]}: {error}", file=sys.stderr)
        sys.exit(2)
    _log_to_stderr(arguments[0], config.log_level)
    try:
        app.main(service=arguments[0], config=config)
    except BadConfiguration as error:
        # Of the files that a service reads when it is built.
        print(f"streams {arguments[0]}: {error}", file=sys.stderr)
        sys.exit(2)


def _log_to_stderr(service: str, level: str) -> None:
    logging.basicConfig(level=level, format=f"%(asctime)s %(levelname)s {service} %(name)s: %(message)s")
    if level != "DEBUG":
        # The first two tell each of their parts' starts and stops, the others every failed attempt with its whole URL.
        for name, quieter in (
            ("faust", "WARNING"),
            ("mode", "WARNING"),
            ("urllib3.connectionpool", "ERROR"),
            ("clickhouse_connect", "ERROR"),
        ):
            logging.getLogger(name).setLevel(quieter)


if __name__ == "__main__":
    main(sys.argv[1:])
