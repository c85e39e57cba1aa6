"""Messages between peers over mutual TLS, one connection per direction.

Each node dials every peer and only sends there; what it receives comes over connections others dialled. What goes over
one of them is in `connections`; here is who is dialled when, and who is let in. Queues are bounded: a message for a
slow or absent peer is dropped, which Raft repairs, and anything unexpected from the other end closes the connection.
Strangers cost one pending handshake of at most `_MAX_PENDING`; when those are used up the oldest makes room.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Coroutine, Mapping
from contextlib import suppress

from controlplane.consensus.connections import Inbound, Outbound, PeerEvents, Revoked, configure
from controlplane.consensus.messages import Message
from controlplane.consensus.roster import Roster
from controlplane.consensus.secure import SecureStream
from controlplane.consensus.settings import parse_address
from controlplane.consensus.tls import TlsContexts
from controlplane.identity.names import IdentityError

_log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 3.0
_RETRY_MIN_S = 0.05
_RETRY_MAX_S = 1.0
_FAILURES_BEFORE_ELSEWHERE = 8
"""About four seconds of dialling in vain."""
_MAX_PENDING = 64
_CROWD_PAUSE_S = 0.01
_REVOCATIONS_S = 1.0
"""How often connections are looked at for certificates that were revoked meanwhile."""


class PeerTransport:
    """The connections of one node. `start` binds; `stop` closes everything."""

    def __init__(
        self,
        *,
        node: str,
        cluster_id: str,
        listen: str,
        peers: Mapping[str, str],
        tls: TlsContexts | None,
        max_frame_bytes: int,
        events: PeerEvents,
        roster: Roster | None = None,
        revoked: Revoked | None = None,
    ) -> None:
        """`roster` says who may connect and what is known of them; None admits `peers` and no one else, for ever.
        `revoked` says why a node's certificate does not count.
        """
        self.node = node
        self.cluster_id = cluster_id
        self.peers: dict[str, str] = {}
        self.roster = roster or Roster(node=node, cluster_id=cluster_id, contacts=peers)
        self.tls = tls
        self.revoked = revoked
        self.max_frame_bytes = max_frame_bytes
        self.events = events
        self.inbound: dict[str, Inbound] = {}
        self._listen = listen
        self._outbound: dict[str, Outbound] = {}
        self._dial_now: dict[str, asyncio.Event] = {}
        self._dials: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: dict[asyncio.Task[None], None] = {}
        self._socket: socket.socket | None = None
        self.set_peers(peers)

    async def start(self) -> None:
        """Bind and begin dialling. Raises OSError when the address cannot be bound."""
        host, port = parse_address("listen", self._listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=128)
        self._socket.setblocking(False)
        self._spawn(self._accept_forever(self._socket), "accept")
        if self.revoked is not None and self.tls is not None:
            self._spawn(self._cut_revoked(), "revocations")
        for peer in self.peers:
            self._begin_dialling(peer)

    def set_peers(self, peers: Mapping[str, str]) -> None:
        """Dial exactly `peers` (id to `host:port`) from now on; connections with anybody else are closed."""
        if self.peers == peers:
            return
        before, self.peers = self.peers, dict(peers)
        for peer in before.keys() - peers.keys():
            if (connection := self.inbound.pop(peer, None)) is not None:
                connection.abort()
            del self._dial_now[peer]
            if (task := self._dials.pop(peer, None)) is not None:
                task.cancel()
        for peer in self.peers:
            # A connection outlives a change of the address: the certificate says who is there.
            self._dial_now.setdefault(peer, asyncio.Event()).set()
            if self._socket is not None and peer not in self._dials:
                self._begin_dialling(peer)

    def _begin_dialling(self, peer: str) -> None:
        self._dials[peer] = self._spawn(self._dial_forever(peer, self._dial_now[peer]), f"dial {peer}")

    async def stop(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in [*self.inbound.values()]:
            connection.abort()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, peer: str, message: Message) -> bool:
        """Queue a message; False when it was certainly not sent (not connected, or the queue is full)."""
        connection = self._outbound.get(peer)
        return connection is not None and connection.send(message)

    def writable(self, peer: str) -> bool:
        connection = self._outbound.get(peer)
        return connection is not None and not connection.congested

    def is_connected(self, peer: str) -> bool:
        return peer in self._outbound

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"raft {self.node} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _cut_revoked(self) -> None:
        while True:
            await asyncio.sleep(_REVOCATIONS_S)
            # One peer at a time: after a rotation all of them come back, and a leader that lost them together would be
            # replaced.
            for peer in sorted(self.inbound.keys() | self._outbound.keys()):
                there = [each for each in (self.inbound.get(peer), self._outbound.get(peer)) if each is not None]
                if True in [each.check_revocation() for each in there]:
                    break

    # -- accepting -----------------------------------------------------------------------------------------------------

    async def _accept_forever(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def ready() -> None:
            # Asked for again when the next one may come: until then the loop must not spin on it.
            loop.remove_reader(listener)
            arrived.set()

        # Not `sock_accept`: cancelled at the wrong moment, it forgets the connection it accepted.
        try:
            while True:
                loop.add_reader(listener, ready)
                await arrived.wait()
                arrived.clear()
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:
                    # Out of descriptors, or the connection was gone already: the listener itself is fine.
                    _log.warning("%s: accept: %s", self.node, error)
                    await asyncio.sleep(0.1)
                    continue
                connection.setblocking(False)
                self._begin_admitting(connection)
                if len(self._pending) > _MAX_PENDING:
                    oldest = next(iter(self._pending))
                    del self._pending[oldest]
                    oldest.cancel()
                    # A crowd comes no faster than this, and the members' connections get their turns in between.
                    await asyncio.sleep(_CROWD_PAUSE_S)
        finally:
            loop.remove_reader(listener)

    def _begin_admitting(self, connection: socket.socket) -> None:
        protocol = Inbound(self)
        outer = SecureStream(self.tls.accept, protocol, server_side=True) if self.tls else protocol
        task = self._spawn(self._admit(protocol, outer, connection), "admit")
        self._pending[task] = None

        def over(done: asyncio.Task[None]) -> None:
            self._pending.pop(done, None)
            if not outer.was_connected:
                connection.close()

        task.add_done_callback(over)

    async def _admit(self, protocol: Inbound, outer: Inbound | SecureStream, connection: socket.socket) -> None:
        """See one accepted connection through its handshake and Hello, or close it."""
        loop = asyncio.get_running_loop()
        transport: asyncio.Transport | None = None
        try:
            configure(connection)
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                transport, _ = await loop.connect_accepted_socket(lambda: outer, connection)
                await protocol.admitted
        except (OSError, TimeoutError, IdentityError) as error:
            _log.info("%s: refused a connection: %s", self.node, error)
            if transport is not None:
                # What it was told, a refusal or an alert, may leave first.
                transport.close()
        except asyncio.CancelledError:
            outer.abort()
            raise

    # -- dialling ------------------------------------------------------------------------------------------------------

    async def _dial_forever(self, peer: str, dial_now: asyncio.Event) -> None:
        delay = _RETRY_MIN_S
        trouble = ""
        failures = 0
        while True:
            protocol = Outbound(self, peer)
            dial_now.clear()
            # Elsewhere only when it is not where it should be for some time.
            elsewhere = self.roster.candidates(peer)[1:] if failures >= _FAILURES_BEFORE_ELSEWHERE else ()
            address = (self.peers[peer], *elsewhere)[failures % (1 + len(elsewhere))]
            try:
                await self._dial(protocol, address)
                delay, trouble, failures = _RETRY_MIN_S, "", 0
                _log.info("%s: connected to %s at %s", self.node, peer, address)
                self._outbound[peer] = protocol
                self.events.on_connected(peer)
                try:
                    await protocol.closed.wait()
                finally:
                    if self._outbound.get(peer) is protocol:
                        del self._outbound[peer]
                    self.events.on_disconnected(peer)
            except (OSError, TimeoutError, IdentityError) as error:
                failures += 1
                if (new := str(error) or type(error).__name__) != trouble:
                    trouble = new
                    _log.info("%s: %s at %s: %s", self.node, peer, address, trouble)
            finally:
                protocol.abort()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay * random.uniform(0.5, 1.0)):  # noqa: S311 - jitter
                    await dial_now.wait()
            delay = min(delay * 2, _RETRY_MAX_S)

    def admitted(self, connection: Inbound, peer: str) -> None:
        """`peer` dialled us: its newest connection counts, and it can be dialled now."""
        previous = self.inbound.pop(peer, None)
        if previous is not None:
            previous.abort()
        self.inbound[peer] = connection
        if peer not in self.peers:
            self.set_peers(self.roster.addresses())
        self._dial_now[peer].set()

    async def _dial(self, protocol: Outbound, address: str) -> None:
        loop = asyncio.get_running_loop()
        host, port = parse_address("peers", address)
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            transport, _ = await loop.create_connection(
                lambda: SecureStream(self.tls.dial, protocol, server_side=False) if self.tls else protocol, host, port
            )
            try:
                await protocol.welcomed
            except BaseException:
                transport.abort()
                raise
