"""The report API as a service: listens, keeps certificates and rules fresh, until it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from controller.metrics import Metrics, counted
from controller.report_api.access import Access, CannotAsk, Remembered
from controller.report_api.app import ReportApi
from controller.report_api.certificates import Certificates
from controller.report_api.front_proxy import FrontProxy, NoFrontProxy
from controller.report_api.live import LiveTasks
from controller.report_api.store import History

log = logging.getLogger(__name__)

# How often the folder of certificates is looked at, and how often the aggregation layer's rules are read again.
LOOK_S = 5.0
RULES_S = 60.0
_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where to listen, port 0 lets the system choose; and with which certificate."""

    host: str
    port: int
    certificate_file: Path
    key_file: Path


async def serve(
    *,
    listen: Listen,
    history: History,
    live: LiveTasks,
    access: Access,
    on_listening: Callable[[int], None] = lambda port: None,
    look_s: float = LOOK_S,
    metrics: Metrics | None = None,
) -> None:
    """Serves until cancelled; ``on_listening`` is told the port.

    Waits for the aggregation layer's rules as long as it takes. Raises OSError, ssl.SSLError for a certificate that
    cannot be used and a port that is taken.
    """
    rules = await _rules(access)
    certificates = Certificates(certificate_file=listen.certificate_file, key_file=listen.key_file, ca_pem=rules.ca_pem)
    api = ReportApi(history=history, live=live, access=Remembered(access), rules=rules)
    runner = web.AppRunner(
        api.application(counted("reports", metrics or Metrics())), access_log=None, shutdown_timeout=5
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, listen.host or None, listen.port, ssl_context=certificates.listening()).start()
        taken = int(runner.addresses[0][1])
        log.info("report API listens on port %d", taken)
        on_listening(taken)
        await _keep_fresh(api, certificates, access, look_s=look_s)
    finally:
        await runner.cleanup()


async def _rules(access: Access) -> FrontProxy:
    while True:
        try:
            return await access.rules()
        except (CannotAsk, NoFrontProxy) as error:
            log.warning("report API waits: %s", error)
            await asyncio.sleep(_AGAIN_S)


async def _keep_fresh(api: ReportApi, certificates: Certificates, access: Access, *, look_s: float) -> None:
    loop = asyncio.get_running_loop()
    read_s = loop.time()
    while True:
        await asyncio.sleep(look_s)
        if loop.time() - read_s >= RULES_S:
            read_s = loop.time()
            try:
                api.rules = await access.rules()
            except (CannotAsk, NoFrontProxy) as error:
                log.warning("the aggregation layer's rules cannot be read, the last ones hold: %s", error)
        try:
            if certificates.refresh(api.rules.ca_pem):
                log.info("report API: new certificates taken")
        except (OSError, ssl.SSLError) as error:
            log.error("%s: cannot be used, the last certificate holds: %s", certificates.certificate_file, error)
