"""python -m streams sink|judge|alarms: one stream service, configured by KPATROL_* variables."""

import logging
import os
import sys
from typing import NoReturn

from streams import app
from streams.config import StreamsConfig
from topics.connection import BadConfiguration


def main(arguments: list[str]) -> NoReturn:
    """Run the named service. Exits with 2 on bad input."""
    if len(arguments) != 1 or arguments[0] not in app.GROUPS:
        print(f"usage: python -m streams {'|'.join(app.GROUPS)}", file=sys.stderr)
        sys.exit(2)
    try:
        config = StreamsConfig.from_env(os.environ)
    except (BadConfiguration, OSError) as error:
        print(f"streams {arguments[0]}: {error}", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(
        level=config.log_level, format=f"%(asctime)s %(levelname)s {arguments[0]} %(name)s: %(message)s"
    )
    if config.log_level != "DEBUG":
        # The first two tell each of their parts' starts and stops, the others every failed attempt with its whole URL.
        for name, level in (
            ("faust", "WARNING"),
            ("mode", "WARNING"),
            ("urllib3.connectionpool", "ERROR"),
            ("clickhouse_connect", "ERROR"),
        ):
            logging.getLogger(name).setLevel(level)
    app.main(service=arguments[0], config=config)


if __name__ == "__main__":
    main(sys.argv[1:])
