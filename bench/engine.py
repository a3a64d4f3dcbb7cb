"""CPU of the load engine per recorded HTTP request: keep-alive, against the agent's own responder in another process.

Usage: python bench/engine.py [--targets N ...] [--rate R] [--seconds S] [--profile]

`rate` is of all targets together. Counted is the client process alone, from the start of the load to its end (user and
system time), encoding of the sealed batches included; connecting is a few requests of many. Prints one RESULT line for
each number of targets. Much of it is the kernel's (a send that wakes the other process, a wait, a receive), so the
barest loop that does the same without a record is measured first, in the same process, and the ratio is printed.
"""

import argparse
import asyncio
import cProfile
import ctypes
import multiprocessing
import os
import pstats
import resource
import select
import socket
import time
from multiprocessing.synchronize import Event
from typing import Any

import uvloop

from producers.load.engine import Limits, LoadAccount, run_load
from producers.load.ticker import now_us
from producers.receipts import Receipts
from producers.responder import serve
from producers.rows import Rows, SealedBatch
from topics.ids import round_id
from topics.outcome import Layer, Proto
from topics.probe_results import BatchHead, BatchTarget, encode_columns
from topics.share import Stream, requests_due
from topics.task_rounds import HttpRequest, MembersRef, RoundScheduled, Target

AGENT, PEER = "bench-client", "bench-server"


def respond(port: int, ready: Event, stop: Event) -> None:
    """The serving process."""

    async def scene() -> None:
        ports = {"https_port": 0, "tcp_port": 0, "udp_port": 0}
        receipts = Receipts()
        responder = await serve(
            agent=PEER, incarnation=1, address="127.0.0.1", http_port=port, tls=None, receipts=receipts, **ports
        )
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.5)
            receipts.take()
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(f"  responder: {used.ru_utime + used.ru_stime:.2f} s CPU, user {used.ru_utime:.2f}")
        await responder.close()

    uvloop.run(scene())


def share(*, port: int, targets: int, rate: float, seconds: float) -> tuple[RoundScheduled, tuple[Stream, ...]]:
    """A round of that many targets, all of them the same server."""
    each = rate / targets
    round_ = RoundScheduled(
        round_id=round_id(task_uid="bench", number=1),
        number=1,
        task_uid="bench",
        task="netreach/bench",
        kind="NetReach",
        start_us=time.time_ns() // 1000,
        deadline_us=0,
        duration_s=seconds,
        rate=each,
        timeout_ms=1000,
        members=MembersRef(group="default", epoch=1, digest="", count=2),
        planned=0,
        http=HttpRequest(url_path="/"),
    )
    due = requests_due(rate=each, duration_s=seconds)
    names = [f"AgentPodV4IP_{i}" for i in range(targets)]
    return round_, tuple(
        Stream(
            target=Target(
                name=name, dst=PEER, proto=Proto.http, layer=Layer.pod, address="127.0.0.1", port=port, agent=PEER
            ),
            requests=due,
        )
        for name in names
    )


async def load(round_: RoundScheduled, streams: tuple[Stream, ...]) -> tuple[LoadAccount, float, float, int]:
    """Run it; the account, seconds of user and system time, and the bytes of the encoded batches."""
    targets = tuple(BatchTarget(name=s.target.name, dst=PEER, proto=Proto.http, layer=Layer.pod) for s in streams)
    size = 0

    def encode(batch: SealedBatch) -> None:
        nonlocal size
        head = BatchHead(
            round_id=round_.round_id,
            round_number=1,
            start_us=round_.start_us,
            task=round_.task,
            task_uid=round_.task_uid,
            agent=AGENT,
            incarnation=1,
            batch_seq=0,
            node=AGENT,
            trace_id="0" * 32,
            targets=targets,
            peers=batch.peers,
            errors=batch.errors,
        )
        size += len(encode_columns(head=head, columns=batch.columns, rows=batch.rows))

    rows = Rows(on_seal=encode)
    before = resource.getrusage(resource.RUSAGE_SELF)
    account = await run_load(
        round_=round_,
        streams=streams,
        agent=AGENT,
        incarnation=1,
        trace_id=os.urandom(16),
        source_address="",
        start_monotonic_us=now_us() + 50_000,
        rows=rows,
        cancel=asyncio.Event(),
        limits=Limits(),
    )
    rows.seal()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return account, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, size


def bare(port: int, *, rate: float, seconds: float) -> float:
    """CPU in µs of the barest loop that does the same on one connection: timer, send, wait, receive; no record."""
    request = (
        b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: kpatrol\r\naccept: */*\r\n"
        b"traceparent: 00-%s-%s-01\r\nkpatrol-from: bare;1;0;1\r\n\r\n" % (b"a" * 32, b"b" * 16)
    )
    due, sent, done = int(rate * seconds), 0, 0
    libc = ctypes.CDLL(None)
    timer = libc.timerfd_create(1, os.O_NONBLOCK)
    gap_ns = int(1e9 / rate)
    with socket.create_connection(("127.0.0.1", port)) as sock, select.epoll() as poll:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(sock.fileno(), select.EPOLLIN)
        poll.register(timer, select.EPOLLIN)
        spec = (ctypes.c_long * 4)(0, gap_ns, 0, gap_ns)
        libc.timerfd_settime(timer, 0, ctypes.byref(spec), None)
        before = time.process_time()
        while done < due:
            for descriptor, _ in poll.poll():
                if descriptor == timer:
                    ticks = int.from_bytes(os.read(timer, 8), "little")
                    for _ in range(min(ticks, due - sent)):
                        sock.send(request)
                        sent += 1
                else:
                    done += sock.recv(65536).count(b"HTTP/1.1")
        used = time.process_time() - before
    os.close(timer)
    return used / due * 1e6


def main() -> None:
    """Run for each number of targets and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--rate", type=float, default=5000)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    context: Any = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    server = context.Process(target=respond, args=(port, ready, stop))
    server.start()
    ready.wait(20)
    try:
        floor_us = bare(port, rate=options.rate, seconds=options.seconds)
        print(f"  bare loop on this machine: {floor_us:.1f} us CPU per request", flush=True)
        for targets in options.targets:
            round_, streams = share(port=port, targets=targets, rate=options.rate, seconds=options.seconds)
            profile = cProfile.Profile()
            if options.profile:
                profile.enable()
            account, user_s, system_s, size = uvloop.run(load(round_, streams))
            profile.disable()
            each = 1e6 / max(1, account.sent)
            print(
                f"RESULT targets={targets} rate={options.rate:.0f} cpu_us_per_request={(user_s + system_s) * each:.1f} "
                f"ratio_to_bare_loop={(user_s + system_s) * each / floor_us:.2f} "
                f"user_us={user_s * each:.1f} system_us={system_s * each:.1f} sent={account.sent} "
                f"unsent={account.unsent} achieved={account.achieved_rate:.0f}/s "
                f"lateness_p50_us={account.lateness_p50_us} p99_us={account.lateness_p99_us} "
                f"max_us={account.lateness_max_us} bytes_per_row={size / max(1, account.sent):.0f}",
                flush=True,
            )
            if options.profile:
                pstats.Stats(profile).sort_stats("tottime").print_stats(28)
    finally:
        stop.set()
        server.join(10)


if __name__ == "__main__":
    main()
