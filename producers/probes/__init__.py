"""One file per protocol: each makes the channel over which the load sends its requests to one target.

Belongs here: protocols, their wire formats, what a valid reply is. Does not belong here: rates, timeouts, Kafka. A new
probe is its file, its line in PROBES, its test.
"""

from collections.abc import Callable, Mapping

from producers.probes import dns, http, icmp, tcp, udp
from producers.probes.base import Channel, Setup
from topics.outcome import Proto

PROBES: Mapping[Proto, Callable[[Setup], Channel]] = {
    Proto.icmp: icmp.channel,
    Proto.udp: udp.channel,
    Proto.tcp: tcp.channel,
    Proto.http: http.channel,
    Proto.https: http.channel,
    Proto.dns: dns.channel,
}
