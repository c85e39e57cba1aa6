"""What a node asks of a host's agent, through whichever node has its session."""

from __future__ import annotations

import grpc
import pytest
from acceptance.agent_session.streams import channel
from acceptance.agent_session.world import Cluster
from grpc import aio
from support.builders import microvm_spec

from controlplane.model.resources import ObservedPower
from controlplane.ports import BidRequestItem, DriverError, HostUnreachableError
from controlplane.ports import NodeView as Belief
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc


async def test_questions_reach_the_agent_through_another_node(ready: Cluster) -> None:
    second = await ready.start_node("n2")
    vm = await ready.place()
    await ready.settled()
    if ready.agents["h1"].node == "n2":
        pytest.fail("the agent had only n1 to dial")
    next_offset, data = await second.link.console("h1", vm.meta.uid, offset=0, limit=4096, timeout_s=5)
    assert next_offset == len(data) > 0
    assert b"simulated" in data
    again, rest = await second.link.console("h1", vm.meta.uid, offset=next_offset, limit=4096, timeout_s=5)
    assert (again, rest) == (next_offset, b"")
    seen = await second.link.detail("h1", vm.meta.uid, timeout_s=5)
    assert (seen.uid, seen.power) == (vm.meta.uid, ObservedPower.RUNNING)
    items = [
        BidRequestItem(uid="a", spec=microvm_spec()),
        BidRequestItem(uid="b", spec=microvm_spec(vcpu=2000)),
        BidRequestItem(uid="c", spec=microvm_spec(provider="qemu")),
    ]
    bids = await second.link.bids("h1", items, timeout_s=5)
    assert bids["a"].refused is None
    assert bids["a"].score is not None
    assert bids["b"].refused == "needs 2000 vcpu, 999 of 1000 are free"
    assert bids["c"].refused == "provider qemu is asked for, this host has simulated"
    present, silent = await second.link.presence(timeout_s=5)
    assert [(each.node, each.host) for each in present] == [("n1", "h1")]
    assert present[0].last_heartbeat_age_s < 5
    assert not silent
    with pytest.raises(DriverError, match="not assigned to host h1") as refused:
        await second.link.console("h1", "unknown", offset=0, limit=10, timeout_s=5)
    assert refused.value.code == "NotAssigned"


async def test_a_host_that_cannot_be_asked(ready: Cluster) -> None:
    second = await ready.start_node("n2")
    with pytest.raises(HostUnreachableError, match="host h9 has no session"):
        await second.link.console("h9", "x", offset=0, limit=10, timeout_s=1)
    await ready.stop_agent()
    await ready.reaches(lambda: ready.gateways["n1"]._sessions.get("h1") is None)
    with pytest.raises(HostUnreachableError, match=r"host h1 by node n1: the agent of host h1 has no session here"):
        await second.link.console("h1", "x", offset=0, limit=10, timeout_s=1)
    await ready.stop_node("n1")
    present, silent = await second.link.presence(timeout_s=1)
    assert (list(present), list(silent)) == ([], ["n1"])


async def test_nodes_tell_each_other_what_they_believe(ready: Cluster) -> None:
    second = await ready.start_node("n2")
    ready.views["n1"].cut()
    views = await second.link.views(timeout_s=5)
    assert list(views) == ["n2", "n1"]
    told = views["n1"]
    assert isinstance(told, Belief)
    assert (told.contact.node, told.contact.leader, told.contact.cut_off) == ("n1", None, True)
    assert told.contact == ready.views["n1"].contact
    assert told.revision == ready.replica.state.revision
    async with channel(ready, ready.certificate("host", "h1"), "n1") as opened:
        with pytest.raises(aio.AioRpcError) as refused:
            await rpc.NodeRelayStub(opened).View(wire.ViewRequest())
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await ready.stop_node("n1")
    assert (await second.link.views(timeout_s=1))["n1"] == "it cannot be reached"
