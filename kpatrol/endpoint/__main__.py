"""python -m kpatrol.endpoint: a ClickHouse-compatible HTTP endpoint over a data folder.

Prints one line on standard output when it answers. Exit codes: 0 stopped by a signal, 2 could not start.
"""

import argparse
import asyncio
import ipaddress
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from kpatrol.endpoint.app import Routes
from kpatrol.endpoint.auth import Account, read_password
from kpatrol.endpoint.engine import Engine, EngineError, FolderInUse
from kpatrol.endpoint.serve import Limits, Service

GRACE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that the command line says."""

    path: Path
    host: str
    port: int
    accounts: tuple[Account, ...]
    database: str
    max_memory_bytes: int
    workers: int
    waiting: int
    limits: Limits
    backups: Path | None


def parse(argv: list[str]) -> Config:
    """The configuration; ends the process with 2 and a message on bad input."""
    p = argparse.ArgumentParser(prog="python -m kpatrol.endpoint", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--path", type=Path, required=True, help="data folder; made if missing")
    p.add_argument("--listen", default="127.0.0.1:8123", help="address:port, port 0 picks one (default %(default)s)")
    p.add_argument("--allow-remote", action="store_true", help="allow an address other than loopback")
    p.add_argument("--writer-password-file", type=Path, required=True)
    p.add_argument("--reader-password-file", type=Path, required=True)
    p.add_argument("--writer", default="writer", help="name of the writing account (default %(default)s)")
    p.add_argument("--reader", default="reader", help="name of the reading account (default %(default)s)")
    p.add_argument("--database", default="kpatrol", help="the product's database (default %(default)s)")
    p.add_argument("--backups", type=Path, help="folder for `kpatrol backup`; made if missing (default: none)")
    p.add_argument("--max-memory-bytes", type=int, default=4 << 30, help="of the engine (default 4 GiB)")
    p.add_argument("--max-body-bytes", type=int, default=Limits().max_body_bytes)
    p.add_argument("--max-result-bytes", type=int, default=Limits().max_result_bytes)
    p.add_argument("--workers", type=int, default=8, help="queries at once (default %(default)s)")
    p.add_argument("--waiting", type=int, default=128, help="queries that may wait for a place (default %(default)s)")
    a = p.parse_args(argv)
    host, _, port = a.listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        p.error(f"--listen: found {a.listen!r}, expected address:port")
    if not a.allow_remote and not _is_loopback(host):
        p.error(f"--listen: {host} is not a loopback address; say --allow-remote if others are to reach it")
    if not a.database.replace("_", "a").isalnum():
        p.error(f"--database: found {a.database!r}, expected letters, digits and _")
    try:
        accounts = (
            Account(user=a.writer, role="writer", password=read_password(a.writer_password_file)),
            Account(user=a.reader, role="reader", password=read_password(a.reader_password_file)),
        )
    except (OSError, ValueError) as error:
        p.error(str(error))
    limits = Limits(
        max_body_bytes=a.max_body_bytes,
        max_result_bytes=a.max_result_bytes,
        max_query_memory_bytes=a.max_memory_bytes // 2,
    )
    return Config(
        path=a.path,
        host=host,
        port=int(port),
        accounts=accounts,
        database=a.database,
        max_memory_bytes=a.max_memory_bytes,
        workers=a.workers,
        waiting=a.waiting,
        limits=limits,
        backups=a.backups.resolve() if a.backups else None,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def run(config: Config, engine: Engine) -> None:
    """Serves until SIGTERM or SIGINT, then lets running queries finish for a while."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = await loop.run_in_executor(None, lambda: Service(engine=engine, limits=config.limits))
    routes = Routes(
        service=service,
        accounts=config.accounts,
        limits=config.limits,
        workers=config.workers,
        waiting=config.waiting,
    )
    runner = web.AppRunner(
        routes.application(),
        # A client that goes away cancels its handler, which ends the query.
        handler_cancellation=True,
        # Bodies are unpacked by us, with a bound on the result.
        auto_decompress=False,
        access_log=None,
        shutdown_timeout=GRACE_S,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.host, config.port)
        await site.start()
        port = runner.addresses[0][1]
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"kpatrol endpoint ready: http://{host}:{port} engine {service.version}", flush=True)
        await stop.wait()
        await site.stop()
        await routes.stop(grace_s=GRACE_S)
    finally:
        await runner.cleanup()


def main(argv: list[str]) -> int:
    """The process; see the module's docstring for the exit codes."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = parse(argv)
    engine = Engine(
        path=config.path,
        database=config.database,
        max_memory_bytes=config.max_memory_bytes,
        backups=config.backups,
    )
    try:
        engine.open()
    except (FolderInUse, EngineError, OSError) as error:
        print(f"kpatrol endpoint: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(run(config, engine))
    except OSError as error:
        print(f"kpatrol endpoint: cannot listen on {config.host}:{config.port}: {error}", file=sys.stderr)
        return 2
    finally:
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
