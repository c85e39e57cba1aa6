"""Tells agents which nodes there are, whenever that changes.

An agent hears of them in its welcome. Its session may last for weeks, and the cluster's members may be replaced one by
one meanwhile: when the node that holds the session goes as the last of them, the agent must know the new ones. A
message to an agent that does not read is dropped, so all is said again from time to time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from controlplane.api.gateway.sessions import Sessions
from controlplane.api.gateway.translate import encode_endpoints
from controlplane.ports import Clock
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

LOOK_S = 1.0
AGAIN_S = 60.0


class NodesTeller:
    """For the sessions of one node. `nodes` gives HOST:PORT by node; empty where it is not known."""

    def __init__(self, nodes: Callable[[], Mapping[str, str]], sessions: Sessions, clock: Clock) -> None:
        self._nodes = nodes
        self._sessions = sessions
        self._clock = clock
        self._told: Mapping[str, str] = {}
        self._told_s = clock.monotonic_s()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        nodes, now_s = dict(self._nodes()), self._clock.monotonic_s()
        if nodes == self._told and now_s - self._told_s < AGAIN_S:
            return
        self._told, self._told_s = nodes, now_s
        for session in self._sessions:
            session.send(wire.ToAgent(nodes=wire.Nodes(endpoints=encode_endpoints(nodes))))
