"""netchecker's metrics by their names, and what it had none for: the verdict, ages, name lookups. Read when scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.members import Heard
from controller.netchecker_api.errors import Counts, label
from controller.netchecker_api.presence import Check, name_of
from topics.agent_reports import TimedUrl

_PROBES: Mapping[str, tuple[str, Callable[[TimedUrl], float]]] = {
    "connection_result": ("Connection result, 0 - fail, 1 - success", lambda timed: int(timed.connected)),
    "code": ("HTTP status code, 0 without a reply", lambda timed: timed.status),
    "total_time_ms": ("The whole request", lambda timed: timed.total_us / 1000),
    "content_transfer_time_ms": ("From the reply's first byte to its last", lambda timed: timed.transfer_us / 1000),
    "tcp_connection_time_ms": ("TCP handshake", lambda timed: timed.tcp_us / 1000),
    "dns_lookup_time_ms": ("Name lookup", lambda timed: timed.dns_us / 1000),
    "connect_time_ms": ("Name lookup and handshake", lambda timed: timed.connect_us / 1000),
    "server_processing_time_ms": ("From the request to the reply's first byte", lambda timed: timed.server_us / 1000),
}  # fmt: skip


class AgentMetrics(Collector):
    """Made anew at every scrape; an agent that is not present shows no probes."""

    def __init__(
        self,
        *,
        heard: Callable[[], Mapping[str, Heard]],
        counts: Counts,
        check: Callable[[], Check],
        now_us: Callable[[], int],
    ) -> None:
        self._heard = heard
        self._counts = counts
        self._check = check
        self._now_us = now_us

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All families."""
        now_us, found = self._now_us(), self._check()
        present = {agent.name for agent in found.of("present")}
        heard = [item for item in self._heard().values() if name_of(item) in present]
        yield _counter("ncagent_report_count", "Reports heard from the agent", self._counts.reports())
        yield _counter("ncagent_error_count", "Reports that the agent missed", self._counts.errors(now_us))
        for name, (text, value) in _PROBES.items():
            gauge = GaugeMetricFamily(f"ncagent_http_probe_{name}", text, labels=("agent", "url"))
            for item in heard:
                for timed in item.report.timed_urls:
                    gauge.add_metric((label(item.report), timed.url), value(timed))
            yield gauge
        lookups = GaugeMetricFamily(
            "ncagent_dns_lookup_result", "1 where the name has an address", labels=("agent", "name")
        )
        for item in heard:
            for name, addresses in item.report.lookups.items():
                lookups.add_metric((label(item.report), name), int(bool(addresses)))
        yield lookups
        yield _ages(found)
        states = GaugeMetricFamily("ncagent_agents", "Agents by what is known of them", labels=("state",))
        for state in ("present", "absent", "outdated", "node", "starting", "left"):
            states.add_metric((state,), sum(agent.state == state for agent in found.agents))
        yield states
        yield GaugeMetricFamily("ncagent_connectivity_check_result", "1 where the check succeeds", value=int(found.ok))


def _counter(name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=("agent",))
    for agent, value in values.items():
        family.add_metric((agent,), value)
    return family


def _ages(found: Check) -> Metric:
    family = GaugeMetricFamily("ncagent_last_report_age_seconds", "Age of the last report", labels=("pod", "node"))
    for agent in found.agents:
        if agent.age_s is not None:
            family.add_metric((agent.name, agent.node), agent.age_s)
    return family
