"""A front process that hangs does not leave its node without an API until somebody notices."""

from __future__ import annotations

import signal

from support.cluster import child_of, make_whole, within

from controlplane.cli.dev.cluster import DevCluster
from controlplane.liveness import HUNG_S


def test_a_stopped_front_is_replaced_and_its_node_answers_again(cluster: DevCluster) -> None:
    node = cluster.layout.plan.nodes[0].name
    raft, front = child_of(cluster, node, "raft"), child_of(cluster, node, "front")
    assert raft is not None
    assert front is not None
    assert front.signal(signal.SIGSTOP)

    def replaced() -> bool:
        now = child_of(cluster, node, "front")
        return now is not None and now.pid != front.pid

    within(HUNG_S + 30, replaced, "another front process")
    make_whole(cluster)
    assert child_of(cluster, node, "raft") == raft, "only what hung is ended"
