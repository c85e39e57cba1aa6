"""What an agent keeps on its host: it stops rather than act on what is damaged or another's."""

from __future__ import annotations

import asyncio

import pytest
from acceptance.agent_session.world import WAIT_S, Cluster

from controlplane.agent import Agent
from controlplane.agent.journal import JournalError
from controlplane.agent.statedir import StateDirError
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.system import SystemClock, Ulids


async def test_an_agent_stays_with_its_cluster(ready: Cluster) -> None:
    await ready.stop_agent()
    (ready.directory / "h1" / "cluster-id").write_text("another\n")
    ready.start_agent()
    await asyncio.sleep(0.5)
    assert ready.agents["h1"].node is None


async def test_a_damaged_journal_stops_the_agent_before_it_does_anything(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.stop_agent()
    damaged = ready.directory / "h1" / "journal" / "vm-web.json"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    agent = Agent(ready.settings(), {"simulated": ready.drivers["h1"]}, SystemClock(), Ulids())
    with pytest.raises(JournalError, match=r"vm-web\.json: the journal's record is damaged"):
        await agent.run()


async def test_an_agent_that_can_write_no_record_stops_and_says_so(ready: Cluster) -> None:
    journal = ready.directory / "h1" / "journal"
    journal.rename(journal.with_name("gone"))
    await ready.place()
    with pytest.raises(JournalError, match=r"vm-web\.json: cannot be written"):
        await asyncio.wait_for(ready.tasks.pop("h1"), WAIT_S)


async def test_one_agent_per_state_directory(ready: Cluster) -> None:
    second = Agent(ready.settings(), {"simulated": SimulatedDriver(ready.directory / "x")}, SystemClock(), Ulids())
    with pytest.raises(StateDirError, match=r"state_dir: .* is in use by another agent \(pid \d+\)"):
        await second.run()
