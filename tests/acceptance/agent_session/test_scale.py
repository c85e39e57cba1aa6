"""Hundreds of microVMs on one agent."""

from __future__ import annotations

from acceptance.agent_session.world import Cluster

from controlplane.machine.convergence import is_settled
from controlplane.model.commands import Delete, Report
from controlplane.model.types import Kind


async def test_two_hundred_microvms_on_one_agent_converge(ready: Cluster) -> None:
    names = [f"vm-{number:03}" for number in range(200)]
    for name in names:
        await ready.place(name)
    await ready.reaches(lambda: all(is_settled(ready.vm(name)) for name in names))
    reports = [command for command in ready.replica.commands if isinstance(command, Report)]
    assert len(reports) < 200, "observations travel together"
    for name in names:
        await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name=name))
    await ready.reaches(lambda: not len(ready.replica.state.microvms))
    assert await ready.drivers["h1"].list() == ()
