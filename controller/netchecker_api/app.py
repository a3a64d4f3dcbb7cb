"""netchecker's routes: /api/v1/ping, /api/v1/agents/, /api/v1/agents/{name}, /api/v1/connectivity_check."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from controller.members import Heard
from controller.netchecker_api import payload
from controller.netchecker_api.errors import Counts
from controller.netchecker_api.facts import ClusterFacts, NoFacts
from controller.netchecker_api.payload import BODY_MOST_BYTES, BadReport
from controller.netchecker_api.presence import FOREIGN_GROUP, Check, check, name_of
from topics.agent_reports import AgentReport

log = logging.getLogger(__name__)

NAME_MOST = 253


@dataclass(slots=True, kw_only=True)
class Agents:
    """What the controller knows of agents, as netchecker's API shows it.

    ``heard`` and ``members`` are asked for anew each time. ``post`` takes a foreign report to where reports come from
    and says whether it got there; None: posts are switched off.
    """

    heard: Callable[[], Mapping[str, Heard]]
    members: Callable[[], Mapping[str, str]]
    now_us: Callable[[], int]
    facts: ClusterFacts = field(default_factory=NoFacts)
    post: Callable[[AgentReport], Awaitable[bool]] | None = None
    counts: Counts = field(default_factory=Counts)

    def check(self) -> Check:
        """The connectivity check as of now."""
        return check(
            heard=self.heard(),
            members=self.members(),
            pods=self.facts.agent_pods(),
            nodes=self.facts.nodes(),
            now_us=self.now_us(),
        )

    def named(self, name: str) -> Heard | None:
        """An agent by its pod's name or its own."""
        heard = self.heard()
        by_pod = next((item for item in heard.values() if name_of(item) == name), None)
        return by_pod or heard.get(name)

    def add_routes(self, app: web.Application) -> None:
        """The routes, for an application that serves other things too."""
        app.router.add_get("/api/v1/ping", self._ping)
        app.router.add_get("/api/v1/agents", self._redirect)
        app.router.add_get("/api/v1/agents/", self._all)
        app.router.add_get("/api/v1/agents/{name}", self._one)
        app.router.add_post("/api/v1/agents/{name}", self._take)
        app.router.add_get("/api/v1/connectivity_check", self._connectivity)

    async def _ping(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _redirect(self, _: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "/api/v1/agents/"})

    async def _all(self, _: web.Request) -> web.Response:
        return web.json_response({name_of(item): payload.agent(item) for item in self.heard().values()})

    async def _one(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        item = self.named(name)
        if item is None:
            return web.json_response({"Message": f"no report of an agent {name!r}"}, status=404)
        return web.json_response(payload.agent(item))

    async def _connectivity(self, request: web.Request) -> web.Response:
        found = self.check()
        return web.json_response(payload.answer(found), status=200 if found.ok else 400)

    async def _take(self, request: web.Request) -> web.Response:
        if self.post is None:
            text = (
                "reports come through Kafka; posting them is switched off (KPATROL_NETCHECKER_POST=true switches it on)"
            )
            return web.json_response({"Message": text}, status=405, headers={"Allow": "GET"})
        try:
            report = await self._posted(request)
            if not await self.post(report):
                raise BadReport("the report could not be stored: Kafka did not confirm it", status=503)
        except BadReport as error:
            return web.json_response({"Message": str(error)}, status=error.status)
        return web.Response()

    async def _posted(self, request: web.Request) -> AgentReport:
        name = request.match_info["name"]
        if len(name) > NAME_MOST:
            raise BadReport(f"name: found {len(name)} characters, allowed: up to {NAME_MOST}")
        known = self.named(name)
        if known is not None and known.report.group != FOREIGN_GROUP:
            raise BadReport(f"{name} is an agent that reports by itself", status=409)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BadReport(f"body: allowed: up to {BODY_MOST_BYTES} bytes", status=413) from error
        return payload.read_report(body, name=name, now_us=self.now_us())
