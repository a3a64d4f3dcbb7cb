"""A share under load: trace id, batches sealed by size, by age and at the end, the instrument read before and after."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from producers.batches import Batches, source_address
from producers.config import Config
from producers.instrument import Gauges, Instrument, Reading, condition
from producers.journal import Ended
from producers.load.engine import LoadAccount
from producers.probes.hops import ends_of, trace
from producers.rows import Rows
from producers.share import Sealer, Share, Store
from topics.round_progress import HopTrace
from topics.share import Stream
from topics.task_rounds import RoundScheduled

log = logging.getLogger(__name__)

# A part-filled batch waits at most this long.
SEAL_AGE_S = 5.0
# How often ports, connection tracking and memory are looked at during a share: about 0.1 ms a look.
LOOK_S = 1.0
# How often the event loop is asked whether it still runs: some 20 µs of CPU a time.
PULSE_S = 0.05


class Load(Protocol):
    """The load engine, as `producers.load.engine.run_load` is."""

    async def __call__(  # noqa: PLR0913
        self,
        *,
        round_: RoundScheduled,
        streams: tuple[Stream, ...],
        agent: str,
        incarnation: int,
        trace_id: bytes,
        source_address: str,
        start_monotonic_us: int,
        rows: Rows,
        cancel: asyncio.Event,
    ) -> LoadAccount: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every share of this agent is run with."""

    config: Config
    incarnation: int
    version: str
    store: Store
    instrument: Instrument
    load: Load
    trace_id: Callable[[], bytes]


async def run_share(
    *,
    bench: Bench,
    owner: Share,
    round_: RoundScheduled,
    streams: tuple[Stream, ...],
    start_us: int,
    waited_us: int,
    cancel: asyncio.Event,
) -> Ended:
    """Run the load to its end and hand over the last batch; what the engine and the instrument say of it.

    `start_us` is the scheduled start on the monotonic clock, `waited_us` how much later the load begins.
    """
    config, trace_id = bench.config, bench.trace_id()
    batches = Batches(
        round_=round_,
        streams=streams,
        identity=config.identity,
        serving=config.serving,
        incarnation=bench.incarnation,
        trace_id=trace_id,
        version=bench.version,
    )
    sealer = Sealer(share=owner, batches=batches, store=bench.store, shift_us=waited_us)
    rows = Rows(on_seal=sealer.take)
    before = bench.instrument.read()
    peak = Peak(bench.instrument)
    tracing = asyncio.create_task(_traces(round_, streams, config, cancel))
    aside = [asyncio.create_task(_seal_aged(rows, sealer)), asyncio.create_task(peak.watch()), tracing]
    try:
        load = await bench.load(
            round_=round_,
            streams=streams,
            agent=config.identity.agent,
            incarnation=bench.incarnation,
            trace_id=trace_id,
            source_address=source_address(streams=streams, serving=config.serving),
            start_monotonic_us=start_us + waited_us,
            rows=rows,
            cancel=cancel,
        )
        traces = await tracing
    except Exception as error:
        # A bug in the engine must not take the other rounds with it; what it leaves unrecorded is declared.
        log.exception("event=load_failed round=%d", round_.round_id)
        return Ended(unsent=0, unrecorded_cause=f"load engine failed: {error!r}", trace_id=trace_id.hex())
    finally:
        for task in aside:
            task.cancel()
        rows.seal()
    ended = _ended(load, bench.instrument.read().since(before), peak, bench.instrument)
    return msgspec.structs.replace(ended, trace_id=trace_id.hex(), traces=traces)


async def _traces(
    round_: RoundScheduled, streams: tuple[Stream, ...], config: Config, cancel: asyncio.Event
) -> tuple[HopTrace, ...]:
    """The ways to the other agents, where the round wants them, while its load runs."""
    if round_.mesh is None or not round_.mesh.hops:
        return ()
    return await asyncio.to_thread(
        trace,
        ends_of(streams),
        agent=config.identity.agent,
        source_address=source_address(streams=streams, serving=config.serving),
        limit=round_.mesh.hops,
        cancelled=cancel.is_set,
    )


async def _seal_aged(rows: Rows, sealer: Sealer) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(max(0.05, sealer.last_s + SEAL_AGE_S - loop.time()))
        if loop.time() - sealer.last_s >= SEAL_AGE_S:
            sealer.last_s = loop.time()
            rows.seal()


class Peak:
    """The greatest values of the instrument's gauges while a share runs, the most CPU time in one second, the
    longest standstill of the loop.

    The engine knows of a standstill only what its own timer shows, and nothing while it is behind and needs no timer.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.standstill_us = 0
        self.cpu_peak_us = 0
        self._instrument = instrument
        self._greatest = instrument.look()

    def greatest(self) -> Gauges:
        """The greatest so far, this moment included."""
        self._greatest = self._greatest.greatest(self._instrument.look())
        return self._greatest

    async def watch(self) -> None:
        """Feel the loop's pulse and look at the gauges until cancelled."""
        loop = asyncio.get_running_loop()
        look_at_s = loop.time() + LOOK_S
        looked_s, used_s = loop.time(), time.process_time()
        while True:
            due_s = loop.time() + PULSE_S
            await asyncio.sleep(PULSE_S)
            self.standstill_us = max(self.standstill_us, int((loop.time() - due_s) * 1e6))
            if loop.time() >= look_at_s:
                look_at_s = loop.time() + LOOK_S
                self.greatest()
                before_s, before_used_s = looked_s, used_s
                looked_s, used_s = loop.time(), time.process_time()
                self.cpu_peak_us = max(self.cpu_peak_us, round((used_s - before_used_s) / (looked_s - before_s) * 1e6))


def _ended(load: LoadAccount, used: Reading, peak: Peak, instrument: Instrument) -> Ended:
    clock = instrument.clock()
    return Ended(
        unsent=load.unsent,
        further=load.further,
        achieved_rate=load.achieved_rate,
        lateness_p50_us=load.lateness_p50_us,
        lateness_p99_us=load.lateness_p99_us,
        lateness_max_us=load.lateness_max_us,
        loop_lag_max_us=max(load.loop_lag_max_us, peak.standstill_us),
        cpu_us=used.cpu_us,
        throttled_us=used.cpu.throttled_us,
        # In a pod the namespace's counters have seen the load's sockets too.
        socket_drops=max(used.socket_drops, load.socket_drops)
        if used.node is None
        else used.socket_drops + load.socket_drops,
        resident_bytes=used.resident_bytes,
        clock_offset_us=clock.offset_us if clock else None,
        unsent_causes=dict(load.unsent_causes),
        condition=condition(
            used=used, peak=peak.greatest(), bounds=instrument.bounds(), clock=clock, cpu_peak_us=peak.cpu_peak_us
        ),
        node_counters=used.node,
    )
