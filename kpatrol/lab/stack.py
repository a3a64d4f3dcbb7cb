"""All parts of a lab: started in order, reached by name, stopped in order.

Order: network and Kafka, topics and ClickHouse's tables, stream services and agents, and the controller last, when
everybody is ready to hear of a round.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kpatrol.lab import environments, loopback, targets
from kpatrol.lab.acls import Role
from kpatrol.lab.addresses import Addresses, write_addresses
from kpatrol.lab.commands import find_program
from kpatrol.lab.environments import AGENT_PORTS, ClickHouseDoor, KafkaDoor
from kpatrol.lab.faults import Fault, parse_fault
from kpatrol.lab.inject import Injection
from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.names import hosts_file, resolver_file, with_names
from kpatrol.lab.netns import Network, build_network, check_control_path
from kpatrol.lab.netplan import Mode, Node, NodeSpec
from kpatrol.lab.options import LabOptions
from kpatrol.lab.problems import follow_problems
from kpatrol.lab.rounds import Rounds
from kpatrol.lab.state import LabState
from kpatrol.lab.supervisor import Service, Supervisor
from kpatrol.lab.taskfiles import LabTask, lay_out
from kpatrol.lab.web import answers, free_port, wait_until
from kpatrol.migrating import migrate_tables
from kpatrol.reading.store import Store
from topics.apply import apply
from topics.connection import KafkaConnection

STREAMS: tuple[Role, ...] = ("sink", "judge", "alarms")
LOOPBACK = "127.0.0.1"
DATABASE = "kpatrol"
READY_S = 60.0
# On one machine the instrument goes before what processes its records: agents are never kept waiting by them.
AFTER = ("nice", "-n", "5")


def agent_names(count: int) -> list[str]:
    """node-1 … node-N."""
    return [f"node-{number}" for number in range(1, count + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultTotal:
    """One fault and what it did, summed over the nodes in whose namespaces it drops."""

    fault: str
    nodes: tuple[str, ...]
    dropped: int
    examined: int

    def words(self) -> str:
        """One line for a person."""
        where = self.nodes[0] if len(self.nodes) == 1 else f"{len(self.nodes)} receiving nodes"
        return f"fault `{self.fault}` at {where}: dropped {self.dropped} of {self.examined} packets"

    def json(self) -> dict[str, object]:
        """The same for scripts."""
        return {"fault": self.fault, "nodes": list(self.nodes), "dropped": self.dropped, "examined": self.examined}


class Stack:
    """One lab's parts. `start` and `stop` are the life; the rest is for reading and for breaking things on purpose."""

    def __init__(
        self, *, lab: LabState, options: LabOptions, tasks: Sequence[LabTask], mode: Mode, say: Callable[[str], None]
    ) -> None:
        self._lab = lab
        self._options = options
        self._kinds = {task.kind for task in tasks}
        self._mode: Mode = mode
        self._say = say
        self._folder = lab.bulk_folder()
        self.logs = self._make("logs")
        self.supervisor = Supervisor(register=lab, logs=self.logs, say=say)
        self.network: Network | None = None
        self.kafka: Kafka | None = None
        # host:port of the pages (/readyz, /metrics) of each stream service.
        self.health: dict[str, str] = {}
        self._injection: Injection | None = None
        self._own_drops: list[Fault] = []
        self._clickhouse: ClickHouseDoor | None = None
        self._store: Store | None = None
        self._problems: asyncio.Task[None] | None = None

    def _make(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        return path

    async def start(self) -> None:
        """Everything up and ready. Raises LabError with what did not come up and its last words."""
        specs = self._agent_specs()
        wanted = self._target_specs()
        self.network = await asyncio.to_thread(build_network, lab=self._lab, mode=self._mode, specs=[*specs, *wanted])
        await check_control_path(self.network)
        faults = [parse_fault(text, nodes=[s.name for s in specs]) for text in self._options.faults]
        self._own_drops = faults if self._mode == "loopback" else []
        self._injection = Injection(self.network, [] if self._mode == "loopback" else faults)
        for fault in self._own_drops:
            self._say(loopback.said(fault))
        self._start_endpoint()
        self.kafka = await self._start_kafka(self.network.gateway)
        await self._topics_and_tables()
        agents = [self.network.nodes[s.name] for s in specs]
        others = [self.network.nodes[s.name] for s in wanted]
        book = self._start_targets(agents, others)
        for node in agents:
            self._start_agent(node)
        for name in STREAMS:
            self.health[name] = f"127.0.0.1:{free_port()}"
            self._start_stream(name, self.health[name])
        self.supervisor.start(
            Service(
                name="rollup",
                module="streams",
                arguments=("rollup",),
                environment=environments.rollup(clickhouse=self.clickhouse()),
                prefix=AFTER,
            )
        )
        for name in STREAMS:
            await self._ready(f"http://{self.health[name]}/readyz", name)
        self._start_controller(book, len(agents))
        self._problems = asyncio.create_task(follow_problems(self._make("controller"), say=self._say))
        write_addresses(self._lab.folder, self._addresses())

    def _agent_specs(self) -> list[NodeSpec]:
        zones = self._options.zones
        return [
            NodeSpec(name=name, zone=f"zone-{index % zones + 1}", rack=f"rack-{index // 2 + 1}")
            for index, name in enumerate(agent_names(self._options.agents))
        ]

    def _target_specs(self) -> list[NodeSpec]:
        if self._mode == "loopback":
            return []
        # A lab that stays up takes tasks of any kind later.
        specs = targets.target_specs(self._kinds, everything=self._options.keep)
        if find_program("unbound") is None and not targets.need_dns(self._kinds):
            if any(s.name == targets.DNS for s in specs):
                self._say("no dns.lab: unbound is not installed (Debian and Ubuntu: apt-get install unbound)")
            return [s for s in specs if s.name != targets.DNS]
        return specs

    def _start_endpoint(self) -> None:
        folder = self._make("clickhouse")
        port = free_port()
        files = {name: folder.parent / f"{name}.password" for name in ("writer", "reader")}
        for path in files.values():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(18))
        self._clickhouse = ClickHouseDoor(
            host="127.0.0.1",
            port=port,
            database=DATABASE,
            writer_file=files["writer"],
            reader_file=files["reader"],
        )
        arguments = ("--path", str(folder), "--listen", f"127.0.0.1:{port}")
        passwords = [word for name in files for word in (f"--{name}-password-file", str(files[name]))]
        self.supervisor.start(Service(name="clickhouse", module="kpatrol.endpoint", arguments=(*arguments, *passwords)))

    async def _start_kafka(self, gateway: str) -> Kafka:
        jars = await asyncio.to_thread(get_jars, cache_folder(os.environ), say=self._say)
        files = KafkaFiles(java=find_java(), jars=jars, folder=self._folder / "kafka")
        return await Kafka.start(
            lab=self._lab,
            files=files,
            addresses=tuple(dict.fromkeys((LOOPBACK, gateway))),
            nodes=self._options.brokers,
            security="SASL_SSL" if self._options.kafka_security == "sasl_ssl" else "PLAINTEXT",
        )

    async def _topics_and_tables(self) -> None:
        door = self.clickhouse()
        await self._ready(f"http://127.0.0.1:{door.port}/ping", "clickhouse")
        partitions = {
            "probe-results-v1": self._options.results_partitions,
            "probe-receipts-v1": self._options.results_partitions,
        }
        replication = min(3, self._options.brokers)
        await asyncio.gather(
            apply(kafka=self.kafka_door(), replication=replication, partitions=partitions),
            asyncio.to_thread(migrate_tables, url=door.url("writer"), env=self._writer_env()),
        )

    def _writer_env(self) -> dict[str, str]:
        return {"KPATROL_CLICKHOUSE_PASSWORD_FILE": str(self.clickhouse().writer_file)}

    def _start_targets(self, agents: list[Node], others: list[Node]) -> Path:
        """Services by nftables, names, target processes; returns the address book's file."""
        assert self.network is not None
        certificates = targets.make_certificates(self._make("certificates")) if others else None
        names = targets.names_of(others)
        if self._mode != "loopback":
            port = AGENT_PORTS[self._mode]["HTTP"]
            self.network.install_services(targets.service_addresses(agents=agents, targets=others, port=port))
        self._hosts, self._resolver = self._folder / "hosts", self._folder / "resolv.conf"
        self._hosts.write_text(hosts_file(names))
        dns = names.get("dns.lab")
        self._resolver.write_text(resolver_file(dns))
        for node in others:
            assert certificates is not None
            self.supervisor.start(
                targets.target_service(
                    node,
                    folder=self._make(f"target-{node.name}"),
                    certificates=certificates,
                    names=names,
                    prefix=self.network.enter(node.name),
                )
            )
        book = self._folder / "services.json"
        book.write_bytes(
            msgspec.json.encode(targets.address_book(targets=others, certificates=certificates, mode=self._mode))
        )
        return book

    def _start_agent(self, node: Node) -> None:
        assert self.network is not None
        prefix = self.network.enter(node.name)
        kafka, spool = self._role("agent", self.network.gateway), self._make(f"spool/{node.name}")
        if self._mode != "loopback":
            prefix += with_names(hosts=self._hosts, resolver=self._resolver)
        self.supervisor.start(
            Service(
                name=f"agent-{node.name}",
                module="producers",
                prefix=tuple(prefix),
                environment=environments.agent(node=node, mode=self._mode, kafka=kafka, spool=spool)
                | loopback.drops(self._own_drops, node=node.name),
            )
        )

    def _start_stream(self, name: Role, health: str) -> None:
        environment = environments.streams(kafka=self._role(name), clickhouse=self.clickhouse(), health=health)
        self.supervisor.start(
            Service(name=name, module="streams", arguments=(name,), environment=environment, prefix=AFTER)
        )

    def _start_controller(self, book: Path, agents: int) -> None:
        tasks = self._make("tasks")
        lay_out(self._options.files, folder=tasks, rounds=self._options.rounds)
        environment = environments.controller(
            kafka=self._role("controller"),
            tasks=tasks,
            state=self._make("controller"),
            services=book,
            agents=agents,
            minute_s=self._options.minute_s,
            max_qps=self._options.max_qps,
            follow_ups=self._options.follow_ups,
        )
        self.supervisor.start(Service(name="controller", module="controller", environment=environment, prefix=AFTER))

    async def _ready(self, url: str, name: str) -> None:
        await wait_until(
            lambda: answers(url), what=name, timeout_s=READY_S, hint=lambda: self.supervisor.last_lines(name)
        )

    async def stop(self) -> None:
        """Everything down, the clients before what they use."""
        if self._problems is not None:
            self._problems.cancel()
            await asyncio.gather(self._problems, return_exceptions=True)
        if self._store is not None:
            self._store.close()
        await self.supervisor.stop(
            order=["controller", ("agent-", "target-"), ("alarms", "judge", "sink", "rollup"), "clickhouse"]
        )
        if self.kafka is not None:
            await self.kafka.stop()
        if self.network is not None:
            await asyncio.to_thread(self.network.close)

    async def inject(self, rounds: Rounds) -> None:
        """Put the faults into force and take them away again in their time, counted from the first round's start."""
        assert self._injection is not None
        if not self._injection.faults:
            return
        for number, fault in enumerate(self._injection.faults):
            if fault.from_s == 0 and fault.to_s is None:
                await asyncio.to_thread(self._injection.begin, number)
        start_us = await rounds.first_start_us()
        ahead_s = start_us / 1e6 - time.time()
        await self._injection.follow_timeline(load_began_s=time.monotonic() + ahead_s)

    def kafka_door(self) -> KafkaConnection:
        """Kafka as an administrator of the lab sees it."""
        assert self.kafka is not None
        return self.kafka.connection("admin", address=LOOPBACK)

    def _role(self, role: Role, address: str = LOOPBACK) -> KafkaDoor:
        assert self.kafka is not None
        return KafkaDoor(variables=self.kafka.environment(role, address=address))

    def clickhouse(self) -> ClickHouseDoor:
        """Where the endpoint listens."""
        assert self._clickhouse is not None
        return self._clickhouse

    def store(self) -> Store:
        """A reader's view of ClickHouse. Raises CannotRead while it is away."""
        if self._store is None:
            door = self.clickhouse()
            self._store = Store(url=door.url("reader"), password=door.reader_file.read_text())
        return self._store

    def failed(self) -> str:
        """Why the lab cannot go on, or an empty string."""
        brokers = self.kafka.children.items() if self.kafka is not None else ()
        ended = [
            f"Kafka broker {n} ended with {c.exit_code}:\n{c.last_lines()}" for n, c in brokers if not c.is_running()
        ]
        return "\n".join([*filter(None, [self.supervisor.failed]), *ended])

    def fault_counts(self) -> list[FaultTotal]:
        """What each fault did so far, exact, over all the nodes where it drops."""
        if self._injection is None:
            return []
        counts = self._injection.counters()
        return [
            FaultTotal(
                fault=text,
                nodes=tuple(c.node for c in counts if c.fault.text == text),
                dropped=sum(c.dropped for c in counts if c.fault.text == text),
                examined=sum(c.examined for c in counts if c.fault.text == text),
            )
            for text in dict.fromkeys(c.fault.text for c in counts)
        ]

    def machine(self) -> dict[str, str | int]:
        """What the machine gave: for reading the numbers."""
        load = f"{os.getloadavg()[0]:.1f}"
        return {"CPUs": os.cpu_count() or 0, "load": load, "network": self._mode, "agents": self._options.agents}

    def _addresses(self) -> Addresses:
        door = self.clickhouse()
        return Addresses(
            lab=self._lab.id,
            kafka=self.kafka_door().bootstrap,
            clickhouse_url=door.url("reader"),
            clickhouse_password=door.reader_file.read_text(),
            tasks_folder=str(self._folder / "tasks"),
            logs_folder=str(self.logs),
        )

    def addresses_text(self) -> str:
        """For a person, with `--keep`."""
        a = self._addresses()
        return (
            f"\nthe lab stays up (Ctrl-C ends it)\n  Kafka       {a.kafka}\n"
            f"  ClickHouse  {a.clickhouse_url}  password {a.clickhouse_password}\n"
            f"  tasks       {a.tasks_folder}   (put a YAML file in)\n  logs        {a.logs_folder}\n"
            "  report      kpatrol report"
        )
