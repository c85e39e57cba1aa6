"""An update stops and starts one node after the other: nobody who writes through the others meets an error."""

from __future__ import annotations

import threading
import time

from support.cluster import leader_of, make_whole, within

from controlplane.cli.dev import processes
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.errors import CliError

PATIENCE_S = 2.0
"""A handover pauses writes for tens of milliseconds; the rest is for a busy machine with three nodes on it."""


class Writer(threading.Thread):
    """Declares one namespace after the other, without ever repeating a request."""

    def __init__(self, cluster: DevCluster, node: str) -> None:
        super().__init__()
        self._cluster = cluster
        self.through = node
        self.written: list[str] = []
        self.slowest_s = 0.0
        self.refused: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            name = f"rolling-{len(self.written)}"
            began = time.monotonic()
            try:
                client = self._cluster.client(node=self.through, retry_for_s=0)
                client.request("PUT", f"/namespaces/{name}", body={"spec": {}}, repeatable=False)
            except CliError as error:
                self.refused.append(f"{name} through {self.through}: {error}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.written.append(name)

    def proceeds(self) -> None:
        count = len(self.written) + 3
        within(60, lambda: len(self.written) > count, "writes go on")


def test_every_node_is_restarted_under_writes_without_an_error(cluster: DevCluster) -> None:
    nodes = [node.name for node in cluster.layout.plan.nodes]
    first = leader_of(cluster)
    writer = Writer(cluster, first)
    writer.start()
    try:
        writer.proceeds()
        for node in [first, *(each for each in nodes if each != first)]:
            writer.through = next(each for each in nodes if each != node)
            writer.proceeds()
            parent = processes.recorded(cluster.layout.run_file(node))
            assert parent is not None
            leads = leader_of(cluster) == node
            assert processes.stop([parent], grace_s=30) == []
            assert ("leads now; this node can stop" in cluster.log_tail(node, lines=100)) >= leads
            writer.proceeds()
            cluster.start([node])
            make_whole(cluster)
    finally:
        writer.done.set()
        writer.join(timeout=60)
    assert writer.refused == []
    assert writer.slowest_s < PATIENCE_S, f"{writer.slowest_s:.2f} s"
    client = cluster.client()
    assert all(client.find(f"/namespaces/{name}") is not None for name in writer.written)
