"""What a check leaves for `kpatrol resume`."""

import msgspec

STATE_VERSION = 1


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs that were not good (source node, destination, protocol), and nodes that had no agent (cluster, node).

    By names, not addresses: a pod that was replaced meanwhile is asked all the same.
    """

    version: int
    pairs: tuple[tuple[str, str, str], ...]
    nodes: tuple[tuple[str, str], ...]
