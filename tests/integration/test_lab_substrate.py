"""The ground a lab stands on, for real: Kafka from Maven's jars, nodes in namespaces, faults, nothing left behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from kpatrol.lab.commands import run_command
from kpatrol.lab.errors import CommandFailed
from kpatrol.lab.faults import parse_fault
from kpatrol.lab.inject import Injection
from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_config import Security
from kpatrol.lab.kafka_jars import KAFKA_VERSION, cache_folder, get_jars
from kpatrol.lab.leftovers import clean_leftovers, tear_down
from kpatrol.lab.netmode import detect_mode, userns_command
from kpatrol.lab.netns import Network, build_network, check_control_path, run_in
from kpatrol.lab.netplan import NodeSpec, service_address, service_address6
from kpatrol.lab.processes import identity_of, marked_processes
from kpatrol.lab.services import Service
from kpatrol.lab.state import USERNS_VARIABLE, LabState
from topics.apply import apply
from topics.connection import KafkaConnection

# Answers every datagram until nothing has come for half a second, then says how many came.
ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7000)); s.settimeout(5); n = 0
print("ready", flush=True)
try:
    while True:
        data, peer = s.recvfrom(2048); n += 1; s.sendto(data, peer); s.settimeout(0.5)
except TimeoutError: print(n)
"""
# Sends so many datagrams of so many bytes, a few at a time, and says how many answers came.
ASK = """
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.3); n = 0
for i in range(int(sys.argv[2])):
    s.sendto(b"x" * int(sys.argv[3]), (sys.argv[1], 7000))
    if i % 10 == 9: time.sleep(0.001)
try:
    while True: s.recvfrom(2048); n += 1
except TimeoutError: print(n)
"""
# Serves "who am I" to every connection.
SERVE = """
import socket, sys
s = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True)
print("ready", flush=True)
while True:
    c, _ = s.accept(); c.sendall(sys.argv[1].encode()); c.close()
"""
FETCH = """
import socket, sys
for _ in range(int(sys.argv[3])):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3) as c: print(c.recv(99).decode())
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabState]:
    state = LabState.create(tmp_path / "base")
    yield state
    assert tear_down(state).failures == []
    assert marked_processes(state.id) == []
    assert namespaces_of(state.id) == []
    assert links_of(state.id) == []


@pytest.fixture
def network(lab: LabState) -> Network:
    assert detect_mode({}).mode == "root", detect_mode({}).reason
    return build_network(lab=lab, mode="root", specs=[NodeSpec(name=f"node-{i}") for i in (1, 2, 3)])


def namespaces_of(lab_id: str) -> list[str]:
    return [line for line in run_command(["ip", "netns", "list"]).splitlines() if f"kp-{lab_id}" in line]


def links_of(lab_id: str) -> list[str]:
    return [line for line in run_command(["ip", "-o", "link"]).splitlines() if f"kp{lab_id}" in line]


def start_in(network: Network, node: str, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python script on a node and wait for its first line."""
    command = [*network.enter(node), sys.executable, "-c", script, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def exchange(network: Network, source: str, target: str, *, count: int, size: int = 100, v6: bool = False) -> list[int]:
    """Ask and answer by UDP: [datagrams that came to the target, answers that came back to the source]."""
    address = network.nodes[target].address6 if v6 else network.nodes[target].address
    assert address is not None
    with start_in(network, target, ECHO, address) as echo:
        said = run_in(network.nodes[source], [sys.executable, "-c", ASK, address, str(count), str(size)])
        output, _ = echo.communicate(timeout=60)
    return [int(output), int(said)]


def injected(network: Network, *texts: str) -> Injection:
    injection = Injection(network, [parse_fault(text, nodes=list(network.nodes)) for text in texts])
    for number in range(len(texts)):
        injection.begin(number)
    return injection


def counted(injection: Injection) -> dict[str, tuple[int, int]]:
    """Node -> (examined, dropped) of the only fault."""
    return {count.node: (count.examined, count.dropped) for count in injection.counters()}


def test_nodes_meet_on_the_data_path_only_and_reach_the_lab(network: Network) -> None:
    one, two = network.nodes["node-1"], network.nodes["node-2"]
    assert one.namespace is not None
    for address in (two.address, two.address6, network.gateway):
        assert " 0% packet loss" in run_in(one, ["ping", "-c", "3", "-i", "0.05", "-q", f"{address}"])
    with pytest.raises(CommandFailed, match="100% packet loss"):
        run_in(one, ["ping", "-c", "1", "-W", "1", "-q", two.ctl_address])
    asyncio.run(check_control_path(network))


@pytest.mark.paced
def test_a_fault_works_in_one_direction_and_counts_exactly(network: Network) -> None:
    injection = injected(network, "ingress node-2 loss=50% proto=udp")
    arrived, answered = exchange(network, "node-1", "node-2", count=400)
    assert counted(injection) == {"node-2": (400, 400 - arrived)}
    assert 120 < arrived < 280  # 8 standard deviations
    assert answered == arrived  # nothing is lost on the way back
    # The other way round node-2 asks, and it is the answers that get lost.
    arrived, answered = exchange(network, "node-2", "node-1", count=400)
    assert arrived == 400
    assert answered < 280
    assert exchange(network, "node-1", "node-3", count=100) == [100, 100]


@pytest.mark.paced
def test_egress_is_dropped_where_it_arrives(network: Network) -> None:
    injection = injected(network, "egress node-1 every=4 proto=udp")
    arrived, answered = exchange(network, "node-1", "node-2", count=200)
    assert (arrived, answered) == (150, 150)
    assert counted(injection) == {"node-2": (200, 50), "node-3": (0, 0)}
    assert exchange(network, "node-2", "node-3", count=100) == [100, 100]


@pytest.mark.paced
def test_a_pair_a_size_and_ipv6(network: Network) -> None:
    injection = injected(network, "pair node-1>node-2 every=2 size>1000")
    assert exchange(network, "node-1", "node-2", count=50, size=900, v6=True) == [50, 50]
    assert exchange(network, "node-1", "node-2", count=50, size=1100, v6=True) == [25, 25]
    assert exchange(network, "node-3", "node-2", count=50, size=1100) == [50, 50]
    assert counted(injection) == {"node-2": (50, 25)}


@pytest.mark.paced
def test_a_fault_ends_in_time_and_keeps_its_counters(network: Network) -> None:
    injection = Injection(network, [parse_fault("ingress node-2 loss=100% from=0.1 to=0.3", nodes=list(network.nodes))])
    one, two = network.nodes["node-1"], network.nodes["node-2"]
    began = time.monotonic()

    async def load() -> list[bool]:
        timeline = asyncio.create_task(injection.follow_timeline(load_began_s=began))
        answers = []
        for at_s in (0.0, 0.2, 0.5):
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            ping = [*network.enter("node-1"), "ping", "-c", "1", "-W", "0.05", "-q", two.address]
            process = await asyncio.create_subprocess_exec(*ping, stdout=subprocess.DEVNULL)
            answers.append(await process.wait() == 0)
        await timeline
        return answers

    run_in(one, ["ping", "-c", "1", "-q", two.address])
    assert asyncio.run(load()) == [True, False, True]
    assert counted(injection) == {"node-2": (1, 1)}


def test_a_packet_on_the_wire_is_one_segment(network: Network) -> None:
    """Otherwise a loss of 2 % of packets would be one of 2 % of 64 KiB pieces."""
    injection = injected(network, "ingress node-2 every=1 size>1500 proto=tcp")
    receive = (
        "import socket; s = socket.create_server(('0.0.0.0', 7001)); print('ready', flush=True)\n"
        "c, _ = s.accept(); n = 0\nwhile d := c.recv(65536): n += len(d)\nprint(n)"
    )
    send = f"import socket; socket.create_connection(('{network.nodes['node-2'].address}', 7001)).sendall(b'x' * 10**6)"
    with start_in(network, "node-2", receive) as receiver:
        run_in(network.nodes["node-1"], [sys.executable, "-c", send])
        assert receiver.communicate(timeout=60)[0] == "1000000\n"
    assert counted(injection) == {"node-2": (0, 0)}


def test_services_lead_to_every_member(network: Network) -> None:
    cluster = Service(
        name="c",
        kind="clusterip",
        port=80,
        target_port=8080,
        members=("node-2", "node-3"),
        address=str(service_address(1)),
        address6=str(service_address6(1)),
    )
    node = Service(name="n", kind="nodeport", port=30080, target_port=8080, members=("node-1", "node-2", "node-3"))
    network.install_services([cluster])
    network.install_services([cluster, node])
    servers = [start_in(network, name, SERVE, name) for name in network.nodes]
    try:
        for address in (cluster.address, cluster.address6):
            for client in ("node-1", "node-2"):
                said = run_in(network.nodes[client], [sys.executable, "-c", FETCH, f"{address}", "80", "40"]).split()
                assert len(said) == 40
                assert set(said) == {"node-2", "node-3"}
        for address in (network.nodes["node-2"].address, f"{network.nodes['node-2'].address6}"):
            for client in ("node-1", "node-2"):
                said = run_in(network.nodes[client], [sys.executable, "-c", FETCH, address, "30080", "60"]).split()
                assert len(said) == 60
                assert set(said) == {"node-1", "node-2", "node-3"}
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def test_a_kernel_without_ipv6_is_enough(lab: LabState) -> None:
    specs = [NodeSpec(name=f"node-{i}") for i in (1, 2, 3)]
    network = build_network(lab=lab, mode="root", specs=specs, ipv6=False)
    assert {node.address6 for node in network.nodes.values()} == {None}
    injected(network, "egress node-3 loss=100%")
    members = ("node-1", "node-2")
    network.install_services([Service(name="n", kind="nodeport", port=30080, target_port=8080, members=members)])
    assert exchange(network, "node-1", "node-2", count=20) == [20, 20]


@pytest.mark.paced
def test_twenty_nodes_are_up_in_seconds(lab: LabState) -> None:
    began = time.monotonic()
    network = build_network(lab=lab, mode="root", specs=[NodeSpec(name=f"node-{i}") for i in range(1, 21)])
    took_s = time.monotonic() - began
    assert took_s < 10
    print(f"twenty nodes in {took_s:.2f} s")
    ends = network.nodes["node-20"].address
    assert " 0% packet loss" in run_in(network.nodes["node-1"], ["ping", "-c", "1", "-q", ends])
    network.close()
    assert namespaces_of(lab.id) == []
    assert links_of(lab.id) == []


# A lab that builds a network with a process inside, says how it went, and waits or ends.
SMALL_LAB = """
import json, os, sys, time
from pathlib import Path
from kpatrol.lab.faults import parse_fault
from kpatrol.lab.inject import Injection
from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.netmode import detect_mode
from kpatrol.lab.netns import build_network, run_in
from kpatrol.lab.netplan import NodeSpec
from kpatrol.lab.processes import spawn
from kpatrol.lab.state import LabState
mode = detect_mode(os.environ)
lab = LabState.create(Path(sys.argv[1]))
network = build_network(lab=lab, mode=mode.mode, specs=[NodeSpec(name="a"), NodeSpec(name="b")])
child = spawn(register=lab, name="c", argv=[*network.enter("a"), "sleep", "60"], environment=dict(os.environ),
              log=lab.folder / "log")
said = {"mode": mode.mode, "reason": mode.reason, "lab": lab.id, "child": child.pid}
if mode.mode != "loopback":
    injection = Injection(network, [parse_fault("ingress b loss=100% size>500", nodes=["a", "b"])])
    injection.begin(0)
    pings = "ping -c 2 -i 0.05 -q {0}; ping -c 2 -i 0.05 -W 0.1 -q -s 600 {0} || true"
    said["pings"] = run_in(network.nodes["a"], ["sh", "-c", pings.format(network.nodes["b"].address)])
    said["dropped"] = injection.counters()[0].dropped
print(json.dumps(said), flush=True)
if sys.argv[2] == "wait": time.sleep(60)
network.close()
said = tear_down(lab).failures
child._process.wait()
sys.exit(len(said))
"""


def test_a_killed_lab_is_cleaned_up_by_the_next_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SMALL_LAB, str(tmp_path / "base"), "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        said = json.loads(killed.stdout.readline())
        assert clean_leftovers(tmp_path / "base") == []
        assert len(namespaces_of(said["lab"])) == 3
        killed.send_signal(signal.SIGKILL)
    (removed,) = clean_leftovers(tmp_path / "base")
    assert removed.failures == []
    assert removed.namespaces == 3
    assert removed.links >= 1
    assert (namespaces_of(said["lab"]), links_of(said["lab"])) == ([], [])
    assert identity_of(said["child"]) is None
    assert clean_leftovers(tmp_path / "base") == []


# Root that has lost its powers is as helpless as any user; what is kept lets it map itself into a user namespace.
POWERLESS = ["setpriv", "--inh-caps=-all", "--bounding-set"]


def test_without_root_a_user_namespace_does_the_same(tmp_path: Path) -> None:
    trial = "import os; from kpatrol.lab.netmode import detect_mode; print(detect_mode(os.environ).mode)"
    assert run_command([*POWERLESS, "-all,+setfcap", sys.executable, "-c", trial]) == "userns\n"
    command = userns_command([sys.executable, "-c", SMALL_LAB, str(tmp_path / "base"), "end"])
    environment = {**os.environ, USERNS_VARIABLE: str(os.getuid())}
    done = subprocess.run(
        [*POWERLESS, "-all,+setfcap", *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["mode"] == "userns"
    assert " 0% packet loss" in said["pings"]
    assert "100% packet loss" in said["pings"]
    assert said["dropped"] == 2
    assert list((tmp_path / "base").glob("lab-*")) == []
    assert (namespaces_of(said["lab"]), links_of(said["lab"])) == ([], [])


def test_where_neither_is_possible_it_says_why(tmp_path: Path) -> None:
    command = [*POWERLESS, "-all", sys.executable, "-c", SMALL_LAB, str(tmp_path / "base"), "end"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["mode"] == "loopback"
    assert said["reason"].count("Operation not permitted") == 2


@pytest.fixture(scope="module")
def files() -> tuple[Path, Path]:
    return find_java(), get_jars(cache_folder(os.environ), say=print)


@asynccontextmanager
async def running(
    lab: LabState,
    files: tuple[Path, Path],
    *,
    addresses: Sequence[str] = ("127.0.0.1",),
    nodes: int = 1,
    security: Security = "PLAINTEXT",
) -> AsyncIterator[Kafka]:
    """Kafka with all topics; killed at the end, if a test has not stopped it before."""
    where = KafkaFiles(java=files[0], jars=files[1], folder=lab.subfolder("kafka"))
    kafka = await Kafka.start(lab=lab, files=where, addresses=addresses, nodes=nodes, security=security)
    try:
        steps = await apply(kafka=kafka.connection("admin"), replication=nodes)
        assert {step.verb for step in steps} == {"create"}
        yield kafka
    finally:
        await kafka.kill()


async def produce(connection: KafkaConnection, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(**connection.producer_options()) as producer:
        await asyncio.wait_for(producer.send_and_wait(topic, value, key=b"k", partition=0), timeout=20)


async def consume(connection: KafkaConnection, topic: str, *, count: int, group: str | None = None) -> list[bytes]:
    options = connection.client_options() | {"group_id": group, "auto_offset_reset": "earliest"}
    consumer = AIOKafkaConsumer(topic, **options)
    try:
        await consumer.start()
        return [(await asyncio.wait_for(consumer.getone(), timeout=20)).value for _ in range(count)]
    finally:
        await consumer.stop()  # also after a refused start, which leaves its connections open


def test_kafka_keeps_its_data_over_restart_and_kill(lab: LabState, files: tuple[Path, Path]) -> None:
    async def run() -> None:
        async with running(lab, files) as kafka:
            admin = kafka.connection("admin")
            await produce(admin, "cluster-events-v1", b"one")
            await kafka.restart()
            await produce(admin, "cluster-events-v1", b"two")
            await kafka.kill(1)
            await kafka.start_brokers()
            assert await consume(admin, "cluster-events-v1", count=2, group="kpatrol-sink") == [b"one", b"two"]
            assert {step.verb for step in await apply(kafka=admin)} == {"keep"}
            (child,) = kafka.children.values()
            await kafka.stop()
            assert identity_of(child.pid) is None

    asyncio.run(run())
    assert marked_processes(lab.id) == []


def test_three_brokers_go_on_without_one(lab: LabState, files: tuple[Path, Path]) -> None:
    async def run() -> None:
        async with running(lab, files, nodes=3) as kafka:
            admin = kafka.connection("admin")
            await produce(admin, "cluster-events-v1", b"one")
            await kafka.kill(2)
            await produce(admin, "cluster-events-v1", b"two")
            assert await consume(admin, "cluster-events-v1", count=2) == [b"one", b"two"]

    asyncio.run(run())


def test_kafka_on_the_control_path_with_a_right_for_every_role(
    lab: LabState, network: Network, files: tuple[Path, Path]
) -> None:
    """SASL_SSL on loopback and on the control bridge; every role gets what the topics' tables say, and no more."""

    async def run() -> None:
        addresses = ("127.0.0.1", network.gateway)
        async with running(lab, files, addresses=addresses, security="SASL_SSL") as kafka:
            sink = kafka.connection("sink")
            await produce(kafka.connection("agent", address=network.gateway), "probe-results-v1", b"row")
            assert await consume(sink, "probe-results-v1", count=1, group="kpatrol-sink") == [b"row"]
            await produce(kafka.connection("judge"), "kpatrol-judge-rounds-changelog", b"state")
            with pytest.raises(TopicAuthorizationFailedError):
                await produce(sink, "probe-results-v1", b"forged")
            with pytest.raises(TopicAuthorizationFailedError):
                await produce(sink, "kpatrol-judge-rounds-changelog", b"forged")
            with pytest.raises(TopicAuthorizationFailedError):
                await consume(kafka.connection("agent"), "round-verdicts-v1", count=1)
            with pytest.raises(GroupAuthorizationFailedError):
                await consume(sink, "probe-results-v1", count=1, group="kpatrol-judge")
            await refuse_strangers(kafka)
            await agent_produces_from_inside(kafka, network)
            assert await consume(sink, "probe-receipts-v1", count=1) == [b"from inside"]
            await kafka.stop()

    asyncio.run(run())


async def refuse_strangers(kafka: Kafka) -> None:
    """A wrong password, no password, no TLS: none gets in."""
    good = kafka.connection("agent")
    for stranger in (
        replace(good, sasl_password="wrong"),
        replace(good, security_protocol="PLAINTEXT", sasl_mechanism=""),
        replace(good, security_protocol="SASL_PLAINTEXT"),
    ):
        producer = AIOKafkaProducer(**stranger.client_options(), request_timeout_ms=3000)
        with pytest.raises(KafkaError):
            await producer.start()
        await producer.stop()


async def agent_produces_from_inside(kafka: Kafka, network: Network) -> None:
    code = (
        "import asyncio, os\nfrom aiokafka import AIOKafkaProducer\nfrom topics.connection import KafkaConnection\n"
        "async def main():\n"
        "    async with AIOKafkaProducer(**KafkaConnection.from_env(os.environ).producer_options()) as producer:\n"
        "        await producer.send_and_wait('probe-receipts-v1', b'from inside', partition=0)\n"
        "asyncio.run(main())"
    )
    environment = {**os.environ, **kafka.environment("agent", address=network.gateway)}
    process = await asyncio.create_subprocess_exec(
        *network.enter("node-2"), sys.executable, "-c", code, env=environment
    )
    assert await asyncio.wait_for(process.wait(), timeout=30) == 0


def test_two_at_once_get_kafkas_jars_once(tmp_path: Path) -> None:
    """Into a fresh cache, beside what a killed download left."""
    stale = tmp_path / "download-killed"
    stale.mkdir()
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda _: get_jars(tmp_path, say=said.append), range(2)))
    assert got == [tmp_path / f"kafka-{KAFKA_VERSION}"] * 2
    assert (got[0] / f"kafka_2.13-{KAFKA_VERSION}.jar").stat().st_size > 1_000_000
    assert sum("through Maven" in line for line in said) == 1
    assert any("MB of jars" in line for line in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download.lock", f"kafka-{KAFKA_VERSION}"]
