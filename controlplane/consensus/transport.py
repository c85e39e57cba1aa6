"""Messages between peers over mutual TLS, one connection per direction.

Each node dials every peer and only sends there; what it receives comes over connections others dialled. A connection
carries frames (see `framing`): a Hello naming cluster, sender and receiver, answered by a HelloReply, then messages.
The sender's name must be the one in its certificate. Queues are bounded: a message for a slow or absent peer is
dropped, which Raft repairs, and anything unexpected from the other end closes the connection. Strangers cost one
pending handshake of at most `_MAX_PENDING`; when those are used up the oldest makes room.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Protocol, cast

from controlplane.consensus.framing import DECODE_ERRORS, FrameDecoder, encode_frame
from controlplane.consensus.messages import (
    PROTOCOL_VERSION,
    Hello,
    HelloReply,
    Message,
    hello_decoder,
    hello_reply_decoder,
    message_decoder,
)
from controlplane.consensus.roster import Roster
from controlplane.consensus.secure import SecureStream
from controlplane.consensus.settings import parse_address
from controlplane.consensus.tls import TlsContexts, peer_identity, peer_serial
from controlplane.identity.names import IdentityError

_log = logging.getLogger(__name__)

_HELLO_BYTES = 1024
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
_QUEUE_HIGH_BYTES = 4 << 20
_QUEUE_DROP_BYTES = 64 << 20
# A peer that vanished without a word (power, cable) is noticed after this.
_SILENT_PEER_MS = 5_000


Revoked = Callable[[str, str], str | None]
"""Node and serial of a certificate to why it does not count; None: nothing is held against it."""


class PeerEvents(Protocol):
    """Called in the event loop. Must not raise."""

    def on_message(self, peer: str, message: Message) -> None: ...

    def on_connected(self, peer: str) -> None: ...

    def on_disconnected(self, peer: str) -> None: ...

    def on_writable(self, peer: str) -> None:
        """The queue to `peer` is short again."""
        ...


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
        `revoked` says why a node's certificate does not count, by its serial.
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
        self._outbound: dict[str, _Outbound] = {}
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
            for connection in (*self.inbound.values(), *self._outbound.values()):
                connection.check_revocation()

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
            _configure(connection)
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
            protocol = _Outbound(self, peer)
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

    async def _dial(self, protocol: _Outbound, address: str) -> None:
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


class _Connection(asyncio.Protocol):
    """What both directions share: the transport, frames in, errors out."""

    def __init__(self, owner: PeerTransport) -> None:
        self.owner = owner
        self.transport: asyncio.Transport | None = None
        self.decoder = FrameDecoder(_HELLO_BYTES)
        self.closed = asyncio.Event()
        self._shown: tuple[str, str] | None = None
        """Whose certificate the other end showed, and its serial."""

    @property
    def was_connected(self) -> bool:
        return self.transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        try:
            self.opened(self._identity())
        except IdentityError as error:
            self.fail(error)

    def _identity(self) -> str | None:
        """The certificate's node id; None without TLS."""
        if self.owner.tls is None:
            return None
        assert self.transport is not None
        connection = cast("ssl.SSLObject", self.transport.get_extra_info("ssl_object"))
        self._shown = (peer_identity(connection, self.owner.cluster_id), peer_serial(connection))
        if (reason := self._revocation()) is not None:
            raise IdentityError(reason)
        return self._shown[0]

    def check_revocation(self) -> None:
        """End the connection if the certificate that it began with counts no more."""
        if (reason := self._revocation()) is not None:
            self.fail(IdentityError(reason))

    def _revocation(self) -> str | None:
        revoked = self.owner.revoked
        return None if revoked is None or self._shown is None else revoked(*self._shown)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self.decoder.feed(data):
                self.frame_received(body)
                if self.transport is None or self.transport.is_closing():
                    return
        except (*DECODE_ERRORS, IdentityError) as error:
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.decoder = FrameDecoder(0)
        self.closed.set()
        self.lost(exc or ConnectionResetError("the other end closed the connection"))

    def fail(self, error: Exception) -> None:
        """Close because of what the other end is or sent."""
        _log.warning("%s: closing a peer connection: %s", self.owner.node, error)
        self.lost(error)
        self.abort()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def opened(self, identity: str | None) -> None:
        raise NotImplementedError

    def frame_received(self, body: bytes) -> None:
        raise NotImplementedError

    def lost(self, error: Exception) -> None:
        raise NotImplementedError


class Inbound(_Connection):
    """A connection a peer dialled: a Hello, then messages."""

    def __init__(self, owner: PeerTransport) -> None:
        super().__init__(owner)
        self.admitted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._identity_seen: str | None = None
        self._peer: str | None = None

    def opened(self, identity: str | None) -> None:
        self._identity_seen = identity

    def frame_received(self, body: bytes) -> None:
        if self._peer is not None:
            self.owner.events.on_message(self._peer, message_decoder.decode(body))
            return
        hello = hello_decoder.decode(body)
        reply = self._judge(hello)
        assert self.transport is not None
        self.transport.write(encode_frame(reply))
        if reply.refusal:
            _log.warning("%s: refused %r: %s", self.owner.node, hello.sender[:64], reply.refusal)
            self.lost(IdentityError(reply.refusal))
            self.transport.close()
            return
        self._peer = hello.sender
        self.decoder.max_bytes = self.owner.max_frame_bytes
        self.owner.admitted(self, hello.sender)
        if not self.admitted.done():
            self.admitted.set_result(hello.sender)

    def _judge(self, hello: Hello) -> HelloReply:
        owner = self.owner
        if hello.protocol != PROTOCOL_VERSION:
            return HelloReply(f"protocol {hello.protocol}, this node speaks {PROTOCOL_VERSION}")
        if owner.tls is not None and hello.sender != self._identity_seen:
            return HelloReply("the sender is not the node its certificate names")
        if hello.receiver != owner.node:
            return HelloReply(f"this is node {owner.node}")
        return owner.roster.judge(hello)

    def lost(self, error: Exception) -> None:
        if self._peer is not None and self.owner.inbound.get(self._peer) is self:
            del self.owner.inbound[self._peer]
        if not self.admitted.done():
            self.admitted.set_exception(error if isinstance(error, OSError) else IdentityError(str(error)))
            # Nobody waits any more when the admission was cancelled or timed out.
            self.admitted.exception()


class _Outbound(_Connection):
    """A connection this node dialled: says Hello, and is usable once welcomed."""

    def __init__(self, owner: PeerTransport, peer: str) -> None:
        super().__init__(owner)
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.congested = False
        self._peer = peer

    def opened(self, identity: str | None) -> None:
        if identity is not None and identity != self._peer:
            raise IdentityError(f"the node there is {identity!r}, not {self._peer!r}")
        assert self.transport is not None
        _configure(cast("socket.socket", self.transport.get_extra_info("socket")))
        self.transport.set_write_buffer_limits(high=_QUEUE_HIGH_BYTES)
        self.transport.write(encode_frame(self.owner.roster.hello(self._peer)))

    def frame_received(self, body: bytes) -> None:
        reply = hello_reply_decoder.decode(body)
        if self.welcomed.done():
            raise IdentityError("the peer spoke on a connection it should only read")
        if reply.refusal:
            self.owner.roster.refused(self._peer, reply)
            raise IdentityError(f"refused: {reply.refusal}")
        if objection := self.owner.roster.examine(self._peer, reply):
            raise IdentityError(objection)
        self.welcomed.set_result(None)

    def lost(self, error: Exception) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(error if isinstance(error, OSError) else IdentityError(str(error)))
            self.welcomed.exception()

    def send(self, message: Message) -> bool:
        transport = self.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > _QUEUE_DROP_BYTES:
            return False
        transport.write(encode_frame(message))
        return True

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self.owner.events.on_writable(self._peer)


def _configure(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_PEER_MS)
