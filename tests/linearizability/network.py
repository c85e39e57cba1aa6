"""The network between nodes: a namespace and a veth for each, one bridge, and rules that cut or spoil the links.

Rules stand in each node's own namespace and drop what arrives, so a link can be cut in one direction. The harness sits
on the bridge too and is never cut off: clients reach every node, whatever the nodes can say to each other. Loss is
nftables'; delay is netem where the kernel has it, else a narrow link with a deep queue (token bucket), which delays
what waits behind something.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from linearizability.sandbox import command

_BRIDGE = "nodes"
_QUEUED_BYTES = 12_000
"""Where delay is a narrow link: what waits in front of a packet that is delayed as ordered."""
_ports = itertools.count(1)
_PREFIX = "10.77.0."
HARNESS_ADDRESS = f"{_PREFIX}254"

Link = tuple[str, str]
"""(from, to)"""


class Network:
    """Use inside a sandbox, one at a time."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self._bridge_ports: dict[str, str] = {}
        self.has_netem = True
        self._cut: frozenset[Link] = frozenset()
        self._loss_percent: dict[str, int] = {}
        self._delayed: set[str] = set()
        command("ip", "link", "add", _BRIDGE, "type", "bridge")
        command("ip", "address", "add", f"{HARNESS_ADDRESS}/24", "dev", _BRIDGE)
        command("ip", "link", "set", _BRIDGE, "up")

    def add(self, node: str) -> str:
        """A namespace named as the node; gives its address."""
        number = len(self.addresses) + 1
        address = self.addresses[node] = f"{_PREFIX}{number}"
        command("ip", "netns", "add", node)
        # The kernel takes its time to remove the ports of the round before.
        port = self._bridge_ports[node] = f"port{next(_ports)}"
        command("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", node)
        command("ip", "link", "set", port, "master", _BRIDGE, "up")
        command("ip", "-n", node, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            command("ip", "-n", node, "link", "set", device, "up")
        return address

    def close(self) -> None:
        """Remove everything; the processes in there must have ended."""
        for node in self.addresses:
            command("ip", "netns", "delete", node)
        command("ip", "link", "delete", _BRIDGE)

    # -- cutting -------------------------------------------------------------------------------------------------------

    def cut(self, links: Iterable[Link]) -> None:
        """Exactly these links are cut from now on."""
        self._filter(frozenset(links), self._loss_percent)

    def split(self, *sides: Sequence[str]) -> None:
        """Only nodes of the same side reach each other."""
        side_of = {node: number for number, side in enumerate(sides) for node in side}
        self.cut((a, b) for a in side_of for b in side_of if side_of[a] != side_of[b])

    def unplug(self, node: str) -> None:
        """Nothing gets in or out, whatever else is bridged in there included."""
        command("ip", "link", "set", self._bridge_ports[node], "down")

    def plug(self, node: str) -> None:
        command("ip", "link", "set", self._bridge_ports[node], "up")

    def lose(self, percent: dict[str, int]) -> None:
        """These nodes lose so many percent of what their peers send them."""
        self._filter(self._cut, percent)

    def _filter(self, cut: frozenset[Link], loss: dict[str, int]) -> None:
        for node in self.addresses:
            before = {link for link in self._cut if link[1] == node}, self._loss_percent.get(node, 0)
            now = {link for link in cut if link[1] == node}, loss.get(node, 0)
            if before != now:
                command("ip", "netns", "exec", node, "nft", "-f", "-", given=self._rules(now[0], now[1]))
        self._cut, self._loss_percent = cut, dict(loss)

    def _rules(self, cut: set[Link], percent: int) -> str:
        rules = [f"ip saddr {self.addresses[source]} drop" for source, _ in sorted(cut)]
        if percent:
            peers = ", ".join(self.addresses.values())
            rules.append(f"ip saddr {{ {peers} }} numgen random mod 100 < {percent} drop")
        body = "\n    ".join(["type filter hook input priority 0; policy accept;", *rules])
        # Replaced in one transaction: there is no moment in between with other rules.
        empty = "table inet faults {}\ndelete table inet faults"
        return f"{empty}\ntable inet faults {{\n  chain in {{\n    {body}\n  }}\n}}\n"

    # -- delaying ------------------------------------------------------------------------------------------------------

    def delay(self, node: str, delay_ms: int) -> None:
        """What `node` sends takes about so much longer."""
        on_device = ("tc", "-n", node, "qdisc", "replace", "dev", "eth0", "root")
        if self.has_netem:
            try:
                command(*on_device, "netem", "delay", f"{delay_ms}ms", f"{delay_ms // 2}ms")
            except RuntimeError:
                self.has_netem = False
        if not self.has_netem:
            rate_bit = _QUEUED_BYTES * 8 * 1000 // delay_ms
            command(*on_device, "tbf", "rate", f"{rate_bit}bit", "burst", "3kb", "latency", f"{delay_ms * 3}ms")
        self._delayed.add(node)

    def heal(self) -> None:
        """Every link is whole and fast."""
        self._filter(frozenset(), {})
        for node in sorted(self._delayed):
            command("tc", "-n", node, "qdisc", "delete", "dev", "eth0", "root")
        self._delayed.clear()
