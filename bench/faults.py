"""Thirty-one faults in real packets, twelve nodes in namespaces: is each named exactly within two rounds? FAULTS.md.

Usage: python -m bench faults [--slices N] [--state FILE] [--page]

A standing patrol by UDP and TCP. A slice is one lab: some faults one after the other, each for two rounds and then one
sound round, or as many rounds without any. A fault is right when in one of its two rounds exactly its place and
direction are named and in neither anything else. A round in which an agent at the fault's place was not fit tells
nothing of it: the fault is played again, three times at most. What is done is kept in FILE, so a run that was stopped
goes on where it was; with --page the page is written of what is there.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.machine import machine

PAGE = Path(__file__).with_name("FAULTS.md")
NODES = 12
ROUND_S = 8
SLOT_S = 3 * ROUND_S
# A fault is in force this long before its first round, and ends this long before the round after its last: to end it at
# eleven receivers takes a busy machine two seconds, and the sound round after it must be one. Six sevenths of a round's
# requests are sent by then.
EARLY_S, OVER_S = 0.8, 2.5
IN_A_SLICE = 8
ATTEMPTS = 3
PATROL = f"""
apiVersion: kpatrol.io/v1beta1
kind: NetPatrol
metadata: {{name: matrix}}
spec:
  protocols: [udp, tcp]
  intervalSecond: {ROUND_S}
  requestsPerRound: 12
  perRequestTimeoutInMS: 1500
  packetSizesInByte: [0]
  fullSizePacket: true
  sourcePorts: 12
"""
FAULTS = (
    *("ingress node-1 loss=2%", "ingress node-2 loss=5%", "ingress node-3 loss=20%", "ingress node-4 loss=50%"),
    *("egress node-5 loss=2%", "egress node-6 loss=5%", "egress node-7 loss=20%", "egress node-8 loss=50%"),
    *("ingress node-9 loss=5% proto=udp", "ingress node-10 loss=20% proto=udp", "egress node-11 loss=5% proto=udp"),
    *("egress node-12 loss=20% proto=udp", "ingress node-1 loss=5% proto=tcp", "ingress node-2 loss=20% proto=tcp"),
    *("egress node-3 loss=5% proto=tcp", "egress node-4 loss=20% proto=tcp"),
    *("pair node-5>node-6 loss=20%", "pair node-7>node-8 loss=50%", "pair node-9>node-10 loss=20% proto=udp"),
    *("pair node-11>node-12 loss=50% proto=udp", "pair node-1>node-5 loss=50% proto=tcp"),
    *("ingress node-6 loss=100% size>1000 proto=udp", "egress node-7 loss=100% size>1000 proto=udp"),
    *("ingress node-8 loss=100% tuples=1/16 proto=udp", "egress node-9 loss=100% tuples=1/16 proto=udp"),
    *("ingress node-10 every=50", "egress node-11 every=50", "ingress node-12 every=10 proto=udp"),
    *("egress node-1 every=10 proto=tcp", "ingress node-2 loss=3%", "egress node-3 loss=3%"),
)


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A fault as it was seen: what each of its rounds named, in which it was named exactly (0 in none).

    `told` is how many of its two rounds could tell of it.
    """

    exact_in: int
    told: int
    named: tuple[tuple[str, ...], ...]
    strangers: tuple[str, ...]


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds without a fault: how many, in how many every agent was fit, and what was named in them."""

    rounds: int
    fit: int
    named: tuple[str, ...]


class Kept(msgspec.Struct):
    """What has been done: attempts by fault, sound rounds between faults, slices of sound rounds alone."""

    faults: dict[str, list[Tried]] = {}
    between: list[Sound] = []
    control: list[Sound] = []


Round = Mapping[str, Any]


def expected(fault: str) -> str:
    """ "ingress node-1 loss=2%" → "node-1 ingress"."""
    direction, place = fault.split()[:2]
    return f"{place} {direction}"


def names(round_: Round) -> tuple[str, ...]:
    """What a round named, as "element direction"."""
    return tuple(sorted(f"{f['element']} {f['direction']}" for f in round_["findings"]))


def tried(fault: str, rounds: Sequence[Round]) -> Tried:
    """A fault in its two rounds; those that could not tell of it are left out."""
    right, place = expected(fault), set(re.split(">", fault.split()[1]))
    told = [r for r in rounds if r["final"] and place.isdisjoint(r["unfit_nodes"])]
    named = tuple(names(r) for r in told)
    exact = [i for i, found in enumerate(named, start=1) if found == (right,)]
    strangers = tuple(f["sentence"] for r in told for f in r["findings"] if f"{f['element']} {f['direction']}" != right)
    return Tried(exact_in=exact[0] if exact else 0, told=len(told), named=named, strangers=strangers)


def sound(rounds: Sequence[Round]) -> Sound:
    """Rounds without a fault."""
    said = tuple(f["sentence"] for r in rounds for f in r["findings"])
    return Sound(rounds=len(rounds), fit=sum(r["trust"] == "good" for r in rounds), named=said)


def is_done(kept: Kept, fault: str) -> bool:
    """Whether a fault was told of, or tried often enough."""
    attempts = kept.faults.get(fault, [])
    return len(attempts) >= ATTEMPTS or any(decided(t) for t in attempts)


def decided(attempt: Tried) -> bool:
    """Right is right; wrong only where both rounds could tell."""
    return bool(attempt.strangers) or attempt.exact_in > 0 or attempt.told == 2


def last_word(attempts: Sequence[Tried]) -> Tried:
    """The attempt that counts: the first that is decided, else the last."""
    return next((t for t in attempts if decided(t)), attempts[-1])


def play(faults: Sequence[str], *, rounds: int) -> list[Round]:
    """One lab; its rounds in order. Raises RuntimeError when it ends without a report."""
    with tempfile.TemporaryDirectory(prefix="kpatrol-faults-") as folder:
        task = Path(folder) / "matrix.yaml"
        task.write_text(PATROL)
        command = [sys.executable, "-m", "kpatrol", "lab", "--json", "-f", str(task), "--agents", str(NODES)]
        command += ["--rounds", str(rounds), "--timeout-s", str(rounds * ROUND_S + 150)]
        for number, fault in enumerate(faults):
            begin_s = max(0.0, number * SLOT_S - EARLY_S)
            command += ["--fault", f"{fault} from={begin_s:g} to={number * SLOT_S + 2 * ROUND_S - OVER_S:g}"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if not run.stdout:
        raise RuntimeError(f"the lab said nothing: {run.stderr[-2000:]}")
    found: list[Round] = [r for t in json.loads(run.stdout)["tasks"] for r in t["rounds"]]
    return sorted(found, key=lambda r: int(r["round"]))


def go_on(kept: Kept, *, state: Path, slices: int) -> None:
    """Play what is not done yet, faults first, then as many sound rounds; each slice is written down."""
    for _ in range(slices):
        waiting = [f for f in FAULTS if not is_done(kept, f)]
        quiet = 3 * len(FAULTS) - sum(s.rounds for s in kept.control)
        if waiting:
            _play_faults(kept, waiting[:IN_A_SLICE])
        elif quiet > 0:
            made = sound(play((), rounds=min(quiet, 3 * IN_A_SLICE)))
            kept.control.append(made)
            print(f"{made.rounds} sound rounds, {made.fit} fit, named: {list(made.named)}", flush=True)
        else:
            return
        state.write_bytes(msgspec.json.encode(kept))


def _play_faults(kept: Kept, faults: Sequence[str]) -> None:
    rounds = {int(r["round"]): r for r in play(faults, rounds=3 * len(faults))}
    for number, fault in enumerate(faults):
        made = tried(fault, [rounds[n] for n in (3 * number + 1, 3 * number + 2) if n in rounds])
        kept.faults.setdefault(fault, []).append(made)
        print(f"{fault:50} exact in {made.exact_in or '-'}; rounds that tell {made.told}; {made.named}", flush=True)
    made = sound([r for n, r in rounds.items() if n % 3 == 0])
    kept.between.append(made)
    print(f"between them: {made.rounds} sound rounds, {made.fit} fit, named: {list(made.named)}", flush=True)


def page(kept: Kept) -> str:
    """bench/FAULTS.md."""
    return "\n".join(_page(kept)) + "\n"


def _page(kept: Kept) -> Iterator[str]:
    done = {f: last_word(kept.faults[f]) for f in FAULTS if kept.faults.get(f)}
    right = sum(t.exact_in > 0 and not t.strangers for t in done.values())
    yield "# Faults in real packets"
    yield ""
    yield (
        f"{machine()}. Repeat with `python -m bench faults`; a run that was stopped goes on where it was. "
        f"{NODES} nodes in network namespaces, a patrol by UDP (smallest and full size) and TCP every {ROUND_S} s, "
        f"each fault for two rounds. Named exactly within two rounds: **{right} of {len(done)}** "
        f"({len(FAULTS)} in all); beside them something else: {sum(bool(t.strangers) for t in done.values())}."
    )
    yield ""
    yield "| fault | exact in round | rounds that tell | attempts | named |"
    yield "|---|---|---|---|---|"
    for fault, told in done.items():
        said = "; ".join(", ".join(found) or "nothing" for found in told.named) or "–"
        yield f"| `{fault}` | {told.exact_in or '–'} | {told.told} | {len(kept.faults[fault])} | {said} |"
    yield ""
    yield "| sound rounds | rounds | every agent fit | named |"
    yield "|---|---|---|---|"
    for words, parts in (("between the faults", kept.between), ("runs without a fault", kept.control)):
        named = [n for s in parts for n in s.named]
        yield f"| {words} | {sum(s.rounds for s in parts)} | {sum(s.fit for s in parts)} | {len(named)} |"
    strangers = [f"{f}: {s}" for f, t in done.items() for s in t.strangers]
    strangers += [f"sound: {n}" for s in (*kept.between, *kept.control) for n in s.named]
    if strangers:
        yield ""
        yield from (f"- {s}" for s in strangers)


def kept_in(state: Path) -> Kept:
    """What an earlier run left, nothing where there was none."""
    return msgspec.json.decode(state.read_bytes(), type=Kept) if state.exists() else Kept()


def main(arguments: Sequence[str] | None = None) -> None:
    """Play and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench faults", description=__doc__)
    parser.add_argument("--slices", type=int, default=100, help="labs to play at most, about four minutes each")
    parser.add_argument("--state", type=Path, default=Path(__file__).with_name(".faults.json"))
    parser.add_argument("--page", action="store_true", help="only write the page of what is in the state")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    kept = kept_in(given.state)
    if not given.page:
        go_on(kept, state=given.state, slices=given.slices)
    given.out.write_text(page(kept))
    print(f"written: {given.out.name}")


if __name__ == "__main__":
    main()
