"""What a lab on shared loopback lacks and what stands in for it. Pure.

Without namespaces no packet can be dropped on a wire. So that a fault can still be shown, an agent's responder
drops UDP probes as they arrive, and the lab says that this is not the network's doing.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.tasks import NetPatrol, NetReach, Task, task_key
from kpatrol.lab.faults import BadFault, Fault

# Read by the agent: drops asked for, separated by commas.
DROP_VARIABLE = "KPATROL_DROP_UDP"
_FORM = "'ingress NODE' or 'pair NODE>NODE' with proto=udp and loss=P% or every=N"
_WAYS = {
    "cluster_ip": "clusterIP",
    "node_port": "nodePort",
    "load_balancer": "loadBalancer",
    "ingress": "ingress",
    "multus_interface": "multusInterface",
}


def missing(tasks: Sequence[Task]) -> list[str]:
    """A line for every task that asks for what is not there; its rounds cannot succeed."""
    lines = []
    for task in tasks:
        lacks = _lacks(task)
        if lacks:
            lines.append(f"{task_key(task)}: not on shared loopback: {', '.join(lacks)}; its rounds will say so")
    return lines


def _lacks(task: Task) -> list[str]:
    if isinstance(task, NetReach):
        target = task.spec.target
        ways = [name for field, name in _WAYS.items() if getattr(target, field)]
        return [*ways, *(["ipv6"] if target.ipv6 else [])]
    if isinstance(task, NetPatrol):
        return ["ipv6"] if task.spec.ipv6 else []
    return ["the targets web.lab and dns.lab with their addresses 10.203.0.x"]


def check_fault(fault: Fault) -> None:
    """Raises BadFault for what an agent's responder cannot do in the network's place."""
    whole = fault.larger_than_bytes is None and fault.tuples is None and fault.from_s == 0 and fault.to_s is None
    if fault.proto != "udp" or fault.kind == "egress" or not whole:
        raise BadFault(
            f"--fault {fault.text!r}: this lab shares the loopback interface, where no packet is dropped on a wire; "
            f"possible here: {_FORM} (the responder of the node then drops UDP probes by itself)"
        )


def drops(faults: Sequence[Fault], *, node: str) -> dict[str, str]:
    """The environment of the agent on `node`: `SHARE` or `1/N`, each with `@AGENT` when only one peer is meant."""
    words = [_word(fault) for fault in faults if fault.target == node]
    return {DROP_VARIABLE: ",".join(words)} if words else {}


def _word(fault: Fault) -> str:
    share = f"1/{fault.every}" if fault.every else f"{fault.loss:g}"
    return share + (f"@{fault.source}" if fault.source else "")


def said(fault: Fault) -> str:
    """The fault in plain words, for the lab's terminal."""
    share = f"one in {fault.every}" if fault.every else f"{fault.loss:.4g} of all"
    whose = f" from {fault.source}" if fault.source else ""
    return (
        f"the responder of {fault.target} drops {share} UDP probes{whose} by itself: "
        "no packets are lost on a wire here; its log counts them"
    )
