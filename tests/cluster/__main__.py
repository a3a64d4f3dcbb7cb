"""A real cluster for a developer:  python -m tests.cluster up [--nodes 3] [--dual] [--engine] [--kafka] [--outside]

Says how to reach it and stays up until Ctrl-C; then everything goes. `python -m tests.cluster down` removes what killed
ones have left; `python -m tests.cluster build` makes programs and images and nothing else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import ExitStack

from kpatrol.lab.errors import LabError
from kpatrol.lab.leftovers import clean_leftovers
from kpatrol.lab.state import base_folder
from tests.cluster.binaries import ensure
from tests.cluster.cluster import PROGRAMS, Cluster, running_cluster
from tests.cluster.images import build_images
from tests.cluster.outside import outside
from tests.cluster.template import containerd_template


def main(argv: list[str]) -> int:
    """0 after an orderly end, 2 when it could not be started."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start one and stay")
    up.add_argument("--nodes", type=int, default=3, help="default %(default)s")
    up.add_argument("--dual", action="store_true", help="IPv4 and IPv6")
    up.add_argument("--engine", action="store_true", help="with the image kpatrol/endpoint")
    up.add_argument("--kafka", action="store_true", help="with the image kpatrol/kafka")
    up.add_argument("--outside", action="store_true", help="Kafka and ClickHouse beside it, and the chart's values")
    commands.add_parser("down", help="remove what killed ones have left")
    commands.add_parser("build", help="programs and images, nothing else")
    options = parser.parse_args(argv)
    try:
        if options.command == "down":
            for removed in clean_leftovers(base_folder(os.environ)):
                _say(str(removed))
        elif options.command == "build":
            _build()
        else:
            _up(options)
    except LabError as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("ended")
    return 0


def _build() -> None:
    programs = ensure(*PROGRAMS, "helm", say=_say)
    images = build_images(pause=programs["pause"], coredns=programs["coredns"], say=_say)
    _say(f"images in {containerd_template(images, say=_say)}")


def _up(options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(
            running_cluster(
                nodes=options.nodes, dual=options.dual, engine=options.engine, kafka=options.kafka, say=_say
            )
        )
        _say(_addresses(cluster))
        if options.outside:
            values = stack.enter_context(outside(cluster)).write_values()
            _say(f"  helm install kpatrol deploy/chart --namespace kpatrol --values {values}")
        _say("Ctrl-C ends it")
        # Ended in order by a service manager too.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.pause()


def _addresses(cluster: Cluster) -> str:
    program = cluster.commands.program
    return (
        f"cluster {cluster.id}\n  export KUBECONFIG={cluster.kubeconfig}\n  alias kubectl={program}\n"
        f"  logs in {cluster.folder}, the machine as pods see it: {cluster.gateway}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
