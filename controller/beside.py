"""What runs beside the controller's loop: netchecker's API, the verdicts' lines and files, the report API.

beside = Beside(BesideConfig.from_env(os.environ), kafka=kafka)
controller = Controller(…, told=beside)
beside.watch(observed=controller.observed, live=controller, facts=…)     # facts: what the cluster says, if there is one
async with serving(pulse, listen=…, beside=beside):                      # controller.health
    … controller.run() and beside.run(access=…)                         # access: Kubernetes' word, if there is one
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from controller.metrics import Metrics, counted
from controller.netchecker_api.app import Agents
from controller.netchecker_api.exposition import AgentMetrics
from controller.netchecker_api.facts import ClusterFacts, NoFacts
from controller.netchecker_api.payload import BODY_MOST_BYTES
from controller.observed import Observed
from controller.publish import Publisher
from controller.report_api.access import Access
from controller.report_api.live import LiveTasks
from controller.report_api.serve import Listen
from controller.report_api.serve import serve as serve_reports
from controller.report_api.store import ClickHouseHistory
from controller.verdict_lines import VerdictLines
from topics import agent_reports
from topics.agent_reports import AgentReport
from topics.connection import BadConfiguration, KafkaConnection
from topics.round_verdicts import RoundVerdict

log = logging.getLogger(__name__)

CLEAN_S = 600.0
_POST_PATIENCE_US = 5_000_000
_YES_NO = {"true": True, "false": False, "1": True, "0": False, "": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportApiConfig:
    """KPATROL_API_LISTEN, KPATROL_API_TLS_CERT_FILE, KPATROL_API_TLS_KEY_FILE; KPATROL_CLICKHOUSE_URL with password."""

    listen: Listen
    clickhouse_url: str
    clickhouse_password: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideConfig:
    """What is told from outside."""

    report_api: ReportApiConfig | None = None
    netchecker_post: bool = False
    """KPATROL_NETCHECKER_POST: netchecker's own agents may post their reports."""
    report_dir: Path | None = None
    """KPATROL_REPORT_DIR: folder of a file for every verdict; unset: none."""
    report_age_days: int = 30
    """KPATROL_REPORT_AGE_DAYS: how long they are kept."""
    report_most_bytes: int = 256 << 20
    """KPATROL_REPORT_MAX_BYTES: of all together; the oldest go first."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> BesideConfig:
        """Reads KPATROL_*. Raises BadConfiguration, naming variable, what was found and what is allowed; OSError."""
        post = env.get("KPATROL_NETCHECKER_POST", "").lower()
        if post not in _YES_NO:
            raise BadConfiguration(f"KPATROL_NETCHECKER_POST: found {post!r}, allowed: true, false")
        folder = env.get("KPATROL_REPORT_DIR", "")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
        return cls(
            report_api=_report_api(env),
            netchecker_post=_YES_NO[post],
            report_dir=Path(folder) if folder else None,
            report_age_days=_whole(env, "KPATROL_REPORT_AGE_DAYS", usual=30, most=36_500),
            report_most_bytes=_whole(env, "KPATROL_REPORT_MAX_BYTES", usual=256 << 20, most=1 << 50),
        )


def _report_api(env: Mapping[str, str]) -> ReportApiConfig | None:
    listen = env.get("KPATROL_API_LISTEN", "")
    if not listen:
        return None
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise BadConfiguration(f"KPATROL_API_LISTEN: found {listen!r}, allowed: host:port or :port")
    given = {}
    for name in ("KPATROL_API_TLS_CERT_FILE", "KPATROL_API_TLS_KEY_FILE", "KPATROL_CLICKHOUSE_URL"):
        given[name] = env.get(name, "")
        if not given[name]:
            raise BadConfiguration(f"{name}: not set, expected one where KPATROL_API_LISTEN is set")
    password_file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
    return ReportApiConfig(
        listen=Listen(
            host=host.strip("[]"),
            port=int(port),
            certificate_file=Path(given["KPATROL_API_TLS_CERT_FILE"]),
            key_file=Path(given["KPATROL_API_TLS_KEY_FILE"]),
        ),
        clickhouse_url=given["KPATROL_CLICKHOUSE_URL"],
        clickhouse_password=Path(password_file).read_text().strip() if password_file else "",
    )


def _whole(env: Mapping[str, str], name: str, *, usual: int, most: int) -> int:
    text = env.get(name, "")
    if not text:
        return usual
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise BadConfiguration(f"{name}: found {text!r}, allowed: a whole number from 1 to {most}")
    return int(text)


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class Beside:
    """The parts, put together. Nothing is served before :meth:`watch`."""

    def __init__(self, config: BesideConfig, *, kafka: KafkaConnection) -> None:
        self._config = config
        self._publisher = Publisher(kafka=kafka, client_id="kpatrol-controller-posts")
        self._observed = Observed()
        self._live: LiveTasks | None = None
        self._awaited = ""
        self.metrics = Metrics()
        self.agents = Agents(
            heard=lambda: self._observed.roster.agents,
            members=self._members,
            now_us=now_us,
            post=self._post if config.netchecker_post else None,
        )
        self.lines = VerdictLines(
            out=sys.stdout,
            folder=config.report_dir,
            age_days=config.report_age_days,
            most_bytes=config.report_most_bytes,
        )
        self.metrics.add(
            AgentMetrics(
                heard=self.agents.heard, counts=self.agents.counts, check=self.agents.check, now_us=self.agents.now_us
            )
        )

    def watch(self, *, observed: Observed, live: LiveTasks, facts: ClusterFacts | None = None) -> None:
        """Whom to ask from now on."""
        self._observed, self._live = observed, live
        self.agents.facts = facts or NoFacts()

    def heard(self, report: AgentReport, *, at_us: int) -> None:
        """A report came while we run."""
        self.agents.counts.heard(report, at_us=at_us)

    def saw_verdict(self, verdict: RoundVerdict, *, at_us: int) -> None:
        """A verdict came while we run."""
        self.metrics.verdicts.labels(verdict.verdict, str(verdict.final).lower()).inc()
        self.lines.tell(verdict, now_us=at_us)

    def application(self) -> web.Application:
        """netchecker's routes; health adds its own."""
        app = web.Application(client_max_size=BODY_MOST_BYTES, middlewares=[counted("http", self.metrics)])
        self.agents.add_routes(app)
        return app

    @property
    def missing(self) -> str:
        """The report API until it listens: before that the API server would be told that we serve it."""
        return self._awaited

    def metrics_text(self) -> str:
        """Prometheus text of all but the loop's own figures."""
        return self.metrics.text()

    async def run(self, *, access: Access | None = None) -> None:
        """Keeps the folder of reports small, and serves reports where Kubernetes can say who may; until cancelled."""
        async with self._publisher, asyncio.TaskGroup() as group:
            group.create_task(self._clean())
            if access is not None and self._config.report_api is not None and self._live is not None:
                self._awaited = "the report API does not listen yet"
                group.create_task(self._serve_reports(self._config.report_api, access, self._live))

    async def _serve_reports(self, config: ReportApiConfig, access: Access, live: LiveTasks) -> None:
        await serve_reports(
            listen=config.listen,
            history=ClickHouseHistory(url=config.clickhouse_url, password=config.clickhouse_password),
            live=live,
            access=access,
            on_listening=self._listens,
            metrics=self.metrics,
        )

    def _listens(self, _port: int) -> None:
        self._awaited = ""

    async def _clean(self) -> None:
        while True:
            removed = await asyncio.to_thread(self.lines.clean, now_us=now_us())
            if removed:
                log.info("%d report files removed: too old or too much", len(removed))
            await asyncio.sleep(CLEAN_S)

    async def _post(self, report: AgentReport) -> bool:
        return await self._publisher.send(agent_reports.TOPIC, report, until_us=now_us() + _POST_PATIENCE_US)

    def _members(self) -> dict[str, str]:
        epoch = self._observed.newest_epoch
        return {member.agent: member.node for member in epoch.members} if epoch is not None else {}
