"""What judging a round of 5,000 nodes takes: from the pair table to the verdict, by stage. `python -m bench.judging`

100,000 pairs (k = 20, 10 datagrams each) with both ends' accounts, a node that loses 2 % of what it receives, and two
rounds in memory. Goal: localisation within 100 ms a round. Prints one RESULT line of wall-clock medians, and the CPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from bench.simulator import Fault, Network, round_of
from streams.judging import pair_table, served, summary, targets
from streams.judging.directions import directions
from streams.judging.evidence import Evidence, evidence
from streams.judging.localise import locate
from streams.judging.pair_table import PairTable
from streams.memory import keep_freed_memory

_pa: Any = pa


def arrow_of(network: Network, seen: Evidence) -> tuple[pa.Table, pa.Table]:
    """(pair table, served) as ClickHouse would answer, of simulated datagrams."""
    there = network.nodes * network.degree
    names = np.array(seen.nodes, dtype=object)
    src, dst = names[seen.src[:there]], names[seen.dst[:there]]
    tried, gone = seen.tried[:there].astype(np.int64), seen.lost[:there].astype(np.int64)
    back = seen.lost[there : 2 * there].astype(np.int64)
    failed = gone + back
    ok = tried - failed
    racks, zones = np.array(seen.racks, dtype=object), np.array(seen.zones, dtype=object)
    targets_ = np.array([f"AgentPodV4IP_{name}_10.0.0.1" for name in seen.nodes], dtype=object)[seen.dst[:there]]
    columns: dict[str, Any] = {
        **{"src_agent": src, "src_node": src, "target": targets_, "dst": dst, "dst_node": dst},
        **{"src_rack": racks[seen.rack[seen.src[:there]]], "dst_rack": racks[seen.rack[seen.dst[:there]]]},
        **{"src_zone": zones[seen.zone[seen.src[:there]]], "dst_zone": zones[seen.zone[seen.dst[:there]]]},
        **{"proto": ["udp"] * there, "layer": ["pod"] * there, "size": np.zeros(there, dtype=np.uint16)},
        **{"n": tried, "ok": ok, "packets_sent": tried, "packets_lost": failed, "ports": np.full(there, 4)},
        **{name: np.zeros(there, dtype=np.int64) for name in ("unopened", "unopened_sent", "unopened_lost")},
        **{f"{of}_us_{what}": ok * 300 for of in ("total", "sent") for what in ("sum", "min", "max")},
    }
    empty = {"hist_total": pair_table.HISTOGRAMS, "hist_sent": pair_table.HISTOGRAMS, "bad_ports": ()}
    entries = np.where(failed > 0, 2, 1)
    offsets = np.concatenate([[0], np.cumsum(entries)]).astype(np.int32)
    keys, values = np.full(offsets[-1], "ok", dtype=object), np.zeros(offsets[-1], dtype=np.int64)
    values[offsets[:-1]] = ok
    lossy = offsets[1:][failed > 0] - 1
    keys[lossy], values[lossy] = "timeout", failed[failed > 0]
    columns["outcomes"] = _pa.MapArray.from_arrays(
        _pa.array(offsets), _pa.array(keys, _pa.string()), _pa.array(values.astype(np.uint64))
    )
    ones = _pa.array(np.arange(there + 1, dtype=np.int32))
    for name in empty:
        kind = pair_table.SCHEMA.field(name).type
        columns[name] = _pa.MapArray.from_arrays(
            ones, _pa.array(np.full(there, 66), kind.key_type), _pa.array(ok, kind.item_type)
        )
    pairs = _pa.table(
        {f.name: _pa.array(columns[f.name], f.type) for f in pair_table.SCHEMA if f.name not in _MAPS}
        | {name: columns[name] for name in _MAPS}
    )
    told = {name: pairs.column(name) for name in served.KEYS}
    told |= {name: _pa.array(np.zeros(there, dtype=np.int64)) for name in served.COUNTS}
    told["received"] = _pa.array(tried - gone)
    return pairs, _pa.table(told)


_MAPS = ("outcomes", "hist_total", "hist_sent", "bad_ports")


def timed(times: dict[str, list[float]], name: str, do: Callable[[], Any]) -> Any:
    """The result, its milliseconds noted."""
    began = time.perf_counter()
    result = do()
    times.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
    return result


def main() -> None:
    """Judge the same round over and over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=9)
    given = parser.parse_args()
    keep_freed_memory()
    network, rng = Network(), np.random.default_rng(1)
    fault = Fault(place="node", number=77, direction="ingress", rate=0.02)
    memories = [locate(round_of(network, number=n, rng=rng), round_id=n, number=n, start_us=n).memory for n in (2, 1)]
    arrow_pairs, arrow_served = arrow_of(network, round_of(network, number=3, rng=rng, faults=[fault]))
    times: dict[str, list[float]] = {}
    cpu_s = time.process_time()
    for _ in range(given.repeat):
        bare = timed(times, "pairs", lambda: pair_table.from_arrow(table=arrow_pairs, raw_rows=0))
        told = timed(times, "served", lambda: served.from_arrow(arrow_served))
        pairs: PairTable = replace(bare, served=told)
        ways = timed(times, "directions", lambda p=pairs: directions(p))
        seen = timed(times, "evidence", lambda p=pairs, w=ways: evidence(p, w))
        found = timed(
            times, "locate", lambda s=seen: locate(s, round_id=3, number=3, start_us=3, memories=memories).findings
        )
        timed(
            times,
            "targets",
            lambda p=pairs: targets.blamed(pairs=p, away=np.zeros(len(p), dtype=bool), round_id=3, start_us=3),
        )
        timed(times, "summary", lambda p=pairs, w=ways: (summary.worst(p, w), summary.requests(p)))
        timed(times, "delays", lambda p=pairs: (summary.delay(p, "total"), summary.delay(p, "sent")))
    cpu_ms = (time.process_time() - cpu_s) * 1e3 / given.repeat
    assert [(f.element, f.direction) for f in found] == [("node-0077", "ingress")], found
    medians = {name: statistics.median(ms) for name, ms in times.items()}
    localisation = sum(medians[name] for name in ("directions", "evidence", "locate"))
    stages = " ".join(f"{name}_ms={ms:.0f}" for name, ms in medians.items())
    print(f"RESULT judging pairs={len(pairs)} {stages} localisation_ms={localisation:.0f} all_cpu_ms={cpu_ms:.0f}")


if __name__ == "__main__":
    main()
