"""Between whom a canary loses: two agents on two nodes, the same ones as long as both are members. Pure."""

from __future__ import annotations

from controller.members import drawn
from topics.mesh_members import Member
from topics.task_rounds import Canary


def canary_of(*, uid: str, share: float, members: tuple[Member, ...]) -> Canary | None:
    """The canary of a task's rounds; None where ``share`` is 0 or there are not two nodes that answer UDP.

    Members that come and go change the pair only when they belong to it, or now rank before one that does.
    """
    ranked = drawn((m for m in members if m.udp_port), by=uid)
    src = ranked[0] if ranked else None
    dst = next((m for m in ranked if src is not None and m.node != src.node), None)
    if not share or src is None or dst is None:
        return None
    return Canary(src=src.agent, dst=dst.agent, src_node=src.node, dst_node=dst.node, share=share)
