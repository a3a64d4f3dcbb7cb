"""What a lab on shared loopback says that it lacks, and the faults it can show."""

import pytest

from controller.tasks import Task, load_tasks
from kpatrol.lab.faults import BadFault, parse_fault
from kpatrol.lab.loopback import check_fault, drops, missing, said

NODES = ("node-1", "node-2")


def task(kind: str, spec: str) -> Task:
    text = f"apiVersion: kdoctor.io/v1beta1\nkind: {kind}\nmetadata: {{name: t}}\nspec: {spec}\n"
    (read,) = load_tasks(text, file="t.yaml")
    return read


def test_a_task_that_asks_for_what_is_not_there_gets_one_line() -> None:
    (line,) = missing([task("NetReach", "{target: {clusterIP: true, nodePort: true, ipv6: true}}")])
    assert line.startswith("netreach/t: ")
    assert "clusterIP, nodePort, ipv6" in line
    assert missing([task("NetReach", "{target: {clusterIP: false, nodePort: false}}")]) == []
    (line,) = missing([task("Netdns", "{}")])
    assert "dns.lab" in line


@pytest.mark.parametrize(
    "text",
    [
        "ingress node-1 loss=2%",
        "ingress node-1 loss=2% proto=tcp",
        "egress node-1 loss=2% proto=udp",
        "ingress node-1 loss=2% proto=udp size>100",
        "ingress node-1 loss=2% proto=udp from=1",
        "ingress node-1 loss=2% proto=udp to=9",
    ],
)
def test_what_a_responder_cannot_do_is_refused_with_what_it_can(text: str) -> None:
    with pytest.raises(BadFault, match="possible here: 'ingress NODE' or 'pair NODE>NODE' with proto=udp"):
        check_fault(parse_fault(text, nodes=NODES))


def test_drops_are_told_to_the_agent_that_receives() -> None:
    texts = ["ingress node-2 loss=20% proto=udp", "pair node-1>node-2 every=50 proto=udp"]
    faults = [parse_fault(text, nodes=NODES) for text in texts]
    for fault in faults:
        check_fault(fault)
    assert drops(faults, node="node-2") == {"KPATROL_DROP_UDP": "0.2,1/50@node-1"}
    assert drops(faults, node="node-1") == {}
    assert "by itself" in said(faults[0])
    assert "from node-1" in said(faults[1])
