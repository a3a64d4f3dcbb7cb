"""How often agents reported, and how often a report was missed: netchecker's two counters. Pure.

The first error counts when two intervals have passed since the last report, then one for every further one; so the
count follows from the time alone, however often it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from topics.agent_reports import AgentReport


def label(report: AgentReport) -> str:
    """netchecker's label of an agent: its node and network, so that a series outlives the pod."""
    return f"{report.node}-{'host' if report.flavour == 'host' else 'private'}_network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One agent's. ``errors`` are those of gaps that are over."""

    label: str
    reports: int = 0
    errors: int = 0
    last_us: int = 0
    interval_us: int = 0
    left: bool = False

    def errors_at(self, now_us: int) -> int:
        """All errors so far, the present gap's included."""
        return self.errors + (0 if self.left else missed(now_us - self.last_us, self.interval_us))


def missed(gap_us: int, interval_us: int) -> int:
    """Reports missed in a gap."""
    return max(0, gap_us // interval_us - 1) if interval_us > 0 else 0


@dataclass(slots=True)
class Counts:
    """Of every agent heard by this process."""

    agents: dict[str, Count] = field(default_factory=dict)

    def heard(self, report: AgentReport, *, at_us: int) -> None:
        """Takes a report that came now."""
        known = self.agents.get(report.agent) or Count(label=label(report), last_us=at_us)
        self.agents[report.agent] = replace(
            known,
            label=label(report),
            reports=known.reports + 1,
            errors=known.errors_at(at_us),
            last_us=at_us,
            interval_us=round(report.interval_s * 1e6),
            left=report.leaving,
        )

    def reports(self) -> dict[str, int]:
        """Label → reports."""
        return self._sums({agent: count.reports for agent, count in self.agents.items()})

    def errors(self, now_us: int) -> dict[str, int]:
        """Label → missed reports."""
        return self._sums({agent: count.errors_at(now_us) for agent, count in self.agents.items()})

    def _sums(self, values: dict[str, int]) -> dict[str, int]:
        sums: dict[str, int] = {}
        for agent, value in values.items():
            name = self.agents[agent].label
            sums[name] = sums.get(name, 0) + value
        return sums
