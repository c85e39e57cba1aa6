"""Inside a sandbox, with a socket in each node's namespace: does each fault of the network do what it says?"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

from linearizability.network import Network
from linearizability.sandbox import command, run_inside, what_is_missing

NODES = ["n1", "n2", "n3"]
PORT = 9000
_CLONE_NEWNET = 0x40000000


def socket_in(node: str, address: str) -> socket.socket:
    with Path(f"/run/netns/{node}").open() as namespace:
        assert ctypes.CDLL(None).setns(namespace.fileno(), _CLONE_NEWNET) == 0
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, PORT))
    made.settimeout(0.15)
    return made


class Links:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.sockets: dict[str, socket.socket] = {}
        for node, address in network.addresses.items():
            # Only the thread moves into the namespace; the socket stays there.
            with ThreadPoolExecutor(1) as thread:
                self.sockets[node] = thread.submit(socket_in, node, address).result()

    def arrives(self, source: str, target: str, size: int = 8) -> bool:
        token = os.urandom(8)
        self.sockets[source].sendto(token.ljust(size), (self.network.addresses[target], PORT))
        try:
            while True:
                if self.sockets[target].recv(2048).startswith(token):
                    return True
        except TimeoutError:
            return False

    def broken(self) -> set[tuple[str, str]]:
        return {(a, b) for a, b in permutations(NODES, 2) if not self.arrives(a, b)}


def main() -> int:
    network = Network()
    for node in NODES:
        network.add(node)
    links = Links(network)
    assert links.broken() == set()

    network.split(["n1"], ["n2", "n3"])
    assert links.broken() == {("n1", "n2"), ("n1", "n3"), ("n2", "n1"), ("n3", "n1")}
    network.cut([("n1", "n2")])
    assert links.broken() == {("n1", "n2")}
    network.cut([("n1", "n3"), ("n3", "n1")])
    assert links.broken() == {("n1", "n3"), ("n3", "n1")}
    network.heal()
    assert links.broken() == set()

    network.lose({"n2": 40})
    lost = sum(not links.arrives("n1", "n2") for _ in range(60))
    assert 8 <= lost <= 42, lost
    assert all(links.arrives("n2", "n1") for _ in range(20))
    network.heal()

    network.delay("n1", 100)
    begun = time.monotonic()
    for _ in range(12):
        links.sockets["n1"].sendto(bytes(1_000), (network.addresses["n2"], PORT))
    assert links.arrives("n1", "n2")
    assert time.monotonic() - begun > 0.03
    network.heal()
    begun = time.monotonic()
    assert links.arrives("n1", "n2")
    assert time.monotonic() - begun < 0.03
    assert links.broken() == set()

    network.close()
    command("ip", "link", "add", "nodes", "type", "bridge")
    return 0


if __name__ == "__main__":
    assert not what_is_missing(), what_is_missing()
    sys.exit(run_inside(main))
