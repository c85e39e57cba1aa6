"""What stands for the connections between Raft members: the surface of `consensus.transport.PeerTransport`, over the
simulated network. Who may connect is the real roster's to say; framing and TLS are left to the tests with sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from simulation.cluster.loop import CURRENT, Process
from simulation.cluster.network import Connection, Network

from controlplane.consensus.connections import PeerEvents
from controlplane.consensus.messages import Answer, Hello, HelloReply, Message, Propose, ReadIndex, message_decoder
from controlplane.consensus.roster import Roster

SILENCE_S = 5.0
_RETRY_S = (0.05, 1.0)
_QUEUE_LIMIT = 256
_NOT_REPEATED = (Propose, ReadIndex, Answer)
"""A repeated request is a second request: no connection repeats or forgets one that lives."""
_encode = msgspec.msgpack.Encoder().encode
_hello_decoder = msgspec.msgpack.Decoder(Hello)
_reply_decoder = msgspec.msgpack.Decoder(HelloReply)


class Switchboard:
    """Who listens where."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.listening: dict[str, SimulatedPeers] = {}

    def peers(self, **settings: Any) -> SimulatedPeers:
        """Takes the place of `PeerTransport(...)`."""
        return SimulatedPeers(self, **settings)


class SimulatedPeers:
    def __init__(
        self,
        switchboard: Switchboard,
        *,
        node: str,
        cluster_id: str,
        listen: str,
        peers: Mapping[str, str],
        tls: object,
        max_frame_bytes: int,
        events: PeerEvents,
        roster: Roster,
        revoked: object,
    ) -> None:
        process = CURRENT.get()
        assert process is not None
        self.node = node
        self.process: Process = process
        self.peers: dict[str, str] = dict(peers)
        self.events = events
        self.roster = roster
        self._switchboard = switchboard
        self._listen = listen
        self._started = False
        self._dials: dict[str, _Dial] = {}

    async def start(self) -> None:
        self._started = True
        self._switchboard.listening[self._listen] = self
        for peer in self.peers:
            self._dial(peer)

    async def stop(self) -> None:
        self._started = False
        if self._switchboard.listening.get(self._listen) is self:
            del self._switchboard.listening[self._listen]
        for dial in self._dials.values():
            dial.hang_up()

    def set_peers(self, peers: Mapping[str, str]) -> None:
        before, self.peers = self.peers, dict(peers)
        for peer in [each for each in before if each not in peers]:
            if (dial := self._dials.pop(peer, None)) is not None:
                dial.hang_up()
        if self._started:
            for peer in self.peers:
                self._dial(peer)

    def _dial(self, peer: str) -> None:
        if peer not in self._dials:
            self._dials[peer] = _Dial(self, peer, self._switchboard)

    def address_of(self, peer: str) -> str | None:
        return self.peers.get(peer) if self._started else None

    def send(self, peer: str, message: Message) -> bool:
        dial = self._dials.get(peer)
        return dial is not None and dial.send(message)

    def writable(self, peer: str) -> bool:
        dial = self._dials.get(peer)
        return dial is not None and dial.writable

    def is_connected(self, peer: str) -> bool:
        dial = self._dials.get(peer)
        return dial is not None and dial.usable


class _Dial:
    """The connection to one peer, dialled again and again: says Hello, and is usable once welcomed."""

    def __init__(self, owner: SimulatedPeers, peer: str, switchboard: Switchboard) -> None:
        self._owner = owner
        self._peer = peer
        self._switchboard = switchboard
        self._connection: Connection | None = None
        self._retry_s = _RETRY_S[0]
        self._over = False
        self.usable = False
        self._attempt()

    def hang_up(self) -> None:
        self._over = True
        if self._connection is not None:
            self._connection.close("client")
        if self.usable:
            self.usable = False
            self._owner.events.on_disconnected(self._peer)

    def send(self, message: Message) -> bool:
        connection = self._connection
        if connection is None or not self.usable or connection.up.length > _QUEUE_LIMIT:
            return False
        connection.up.put(_encode(message), droppable=not isinstance(message, _NOT_REPEATED))
        return True

    @property
    def writable(self) -> bool:
        return self.usable and self._connection is not None and self._connection.up.length < _QUEUE_LIMIT / 2

    def _attempt(self) -> None:
        owner, network = self._owner, self._switchboard.network
        address = owner.address_of(self._peer)
        if self._over or address is None:
            return
        target = self._switchboard.listening.get(address)
        here = owner.process.machine.name
        if target is None or not target.process.alive or not network.reachable(here, target.process.machine.name):
            self._again()
            return
        visit = _Visit(owner.node, target)
        self._connection = visit.connection = Connection(
            network,
            owner.process,
            target.process,
            taken=visit.take,
            answered=self._answered,
            lost=self._lost,
            silence_s=SILENCE_S,
        )
        self._connection.up.put(_encode(owner.roster.hello(self._peer)))

    def _again(self) -> None:
        chance = self._owner.process.machine.chance
        delay_s = self._retry_s * chance.uniform(0.5, 1.0)
        self._retry_s = min(2 * self._retry_s, _RETRY_S[1])
        self._owner.process.post_after(delay_s, self._attempt)

    def _answered(self, data: bytes) -> None:
        reply = _reply_decoder.decode(data)
        roster, connection = self._owner.roster, self._connection
        assert connection is not None
        if reply.refusal:
            roster.refused(self._peer, reply)
        if reply.refusal or roster.examine(self._peer, reply):
            connection.close("client")
            self._connection = None
            self._again()
            return
        self._retry_s = _RETRY_S[0]
        self.usable = True
        self._owner.events.on_connected(self._peer)

    def _lost(self, end: str) -> None:
        if end == "server":
            return
        self._connection = None
        if self.usable:
            self.usable = False
            self._owner.events.on_disconnected(self._peer)
        if not self._over:
            self._again()


class _Visit:
    """One connection as the peer has it: a Hello, and once that was taken, messages."""

    def __init__(self, sender: str, target: SimulatedPeers) -> None:
        self._sender = sender
        self._target = target
        self._admitted = False
        self.connection: Connection | None = None

    def take(self, data: bytes) -> None:
        target, connection = self._target, self.connection
        if self._admitted:
            target.events.on_message(self._sender, message_decoder.decode(data))
            return
        hello = _hello_decoder.decode(data)
        reply = target.roster.judge(hello)
        assert connection is not None
        connection.down.put(_encode(reply))
        if not reply.refusal:
            self._admitted = True
            if hello.sender not in target.peers:
                target.set_peers(target.roster.addresses())
