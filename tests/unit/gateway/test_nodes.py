"""Agents are told of nodes that come, go and move, and again from time to time."""

from __future__ import annotations

from support.harness import Replica
from support.identity import caller_of

from controlplane.api.gateway.nodes import AGAIN_S, NodesTeller
from controlplane.api.gateway.session import AgentSession
from controlplane.api.gateway.sessions import Sessions
from controlplane.system import SystemClock, Ulids
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire


class StoppedClock(SystemClock):
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


def test_every_session_is_told_of_a_change_once_and_of_all_again_later() -> None:
    nodes, clock, sessions, replica = {"n1": "a:1", "n2": ""}, StoppedClock(), Sessions(), Replica()
    told: list[dict[str, str]] = []
    for host in ("h1", "h2"):
        session = AgentSession(
            host=host,
            session="s1",
            shown=caller_of(host),
            reader=replica,
            proposer=replica,
            clock=clock,
            ids=Ulids(),
            heard=lambda _: None,
            opened=lambda _: {},
        )

        def send(message: wire.ToAgent) -> None:
            told.append({each.node: each.address for each in message.nodes.endpoints})

        session.send = send  # type: ignore[method-assign]
        sessions.add(session)
    teller = NodesTeller(lambda: nodes, sessions, clock)

    def looked() -> list[dict[str, str]]:
        told.clear()
        teller.look()
        return list(told)

    assert looked() == [{"n1": "a:1"}] * 2, "what is not known cannot be dialled"
    assert looked() == []
    nodes["n2"] = "b:2"
    assert looked() == [{"n1": "a:1", "n2": "b:2"}] * 2
    del nodes["n1"]
    assert looked() == [{"n2": "b:2"}] * 2
    clock.now_s += AGAIN_S
    assert looked() == [{"n2": "b:2"}] * 2
