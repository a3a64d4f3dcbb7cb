"""A small real web server as the target of AppHttpHealthy tasks in the lab. Run inside a target's namespace.

`/` answers 200; `/status/N` answers N; `/delay/MS` answers after that many milliseconds; any method, any body.
Plain HTTP and HTTPS with a certificate for its name; one more port has a certificate for another name.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
from pathlib import Path

from aiohttp import web

DELAY_MAX_MS = 60_000


async def _answer(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response({"method": request.method, "path": request.path, "bytes": len(body)})


async def _status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["code"]), text="as asked\n")


async def _delay(request: web.Request) -> web.Response:
    await asyncio.sleep(min(int(request.match_info["ms"]), DELAY_MAX_MS) / 1000)
    return web.Response(text="late\n")


def application() -> web.Application:
    """The server's routes."""
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", r"/status/{code:[1-5]\d\d}", _status)
    app.router.add_route("*", r"/delay/{ms:\d{1,6}}", _delay)
    app.router.add_route("*", "/{tail:.*}", _answer)
    return app


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def serve(*, address: str, http: int, tls: list[tuple[int, Path]]) -> None:
    """Serve until cancelled; says `ready` on standard output once all ports listen."""
    runner = web.AppRunner(application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, http).start()
        for port, certificate in tls:
            await web.TCPSite(runner, address, port, ssl_context=_context(certificate)).start()
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Command line: --address A --http PORT [--https PORT=PEMFILE]..."""
    parser = argparse.ArgumentParser(description="web target of the lab")
    parser.add_argument("--address", required=True)
    parser.add_argument("--http", type=int, default=80)
    parser.add_argument("--https", action="append", default=[], metavar="PORT=PEM")
    options = parser.parse_args()
    tls = [(int(port), Path(pem)) for port, _, pem in (item.partition("=") for item in options.https)]
    asyncio.run(serve(address=options.address, http=options.http, tls=tls))


if __name__ == "__main__":
    main()
