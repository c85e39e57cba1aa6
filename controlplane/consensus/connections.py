"""One connection between two peers, at either end: what is said, who is believed, and what ends it.

A connection carries frames (see `framing`): a Hello naming cluster, sender and receiver, answered by a HelloReply, then
messages. The sender's name must be the one in its certificate. `Inbound` is what a peer dialled: its Hello is judged
and answered. `Outbound` is what this node dialled: it says Hello, and sends once it is welcomed. Each kind only ever
sends or only ever receives messages, and whatever else arrives closes it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, cast

from cryptography import x509

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
from controlplane.consensus.tls import TlsContexts, peer_certificate, peer_identity
from controlplane.identity.names import IdentityError

_log = logging.getLogger(__name__)

_HELLO_BYTES = 1024
_QUEUE_HIGH_BYTES = 4 << 20
_QUEUE_DROP_BYTES = 64 << 20
# A peer that vanished without a word (power, cable) is noticed after this.
_SILENT_PEER_MS = 5_000

Revoked = Callable[[str, x509.Certificate], str | None]
"""A node and its certificate to why that does not count; None: nothing is held against it."""


class PeerEvents(Protocol):
    """Called in the event loop. Must not raise."""

    def on_message(self, peer: str, message: Message) -> None: ...

    def on_connected(self, peer: str) -> None: ...

    def on_disconnected(self, peer: str) -> None: ...

    def on_writable(self, peer: str) -> None:
        """The queue to `peer` is short again."""
        ...


class Owner(Protocol):
    """The node that a connection belongs to."""

    node: str
    cluster_id: str
    tls: TlsContexts | None
    """None: nobody shows a certificate."""
    roster: Roster
    revoked: Revoked | None
    max_frame_bytes: int
    events: PeerEvents
    inbound: dict[str, Inbound]
    """The newest connection of each peer that dialled."""

    def admitted(self, connection: Inbound, peer: str) -> None: ...


class Connection(asyncio.Protocol, ABC):
    """What both directions share: the transport, frames in, errors out."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.transport: asyncio.Transport | None = None
        self.decoder = FrameDecoder(_HELLO_BYTES)
        self.closed = asyncio.Event()
        self._shown: tuple[str, x509.Certificate] | None = None
        """Whose certificate the other end showed."""

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
        self._shown = (peer_identity(connection, self.owner.cluster_id), peer_certificate(connection))
        if (reason := self._revocation()) is not None:
            raise IdentityError(reason)
        return self._shown[0]

    def check_revocation(self) -> bool:
        """End the connection if the certificate that it began with counts no more; gives whether it did."""
        if (reason := self._revocation()) is None:
            return False
        self.fail(IdentityError(reason))
        return True

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

    @abstractmethod
    def opened(self, identity: str | None) -> None: ...

    @abstractmethod
    def frame_received(self, body: bytes) -> None: ...

    @abstractmethod
    def lost(self, error: Exception) -> None: ...


class Inbound(Connection):
    """A connection a peer dialled: a Hello, then messages."""

    def __init__(self, owner: Owner) -> None:
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


class Outbound(Connection):
    """A connection this node dialled: says Hello, and is usable once welcomed."""

    def __init__(self, owner: Owner, peer: str) -> None:
        super().__init__(owner)
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.congested = False
        self._peer = peer

    def opened(self, identity: str | None) -> None:
        if identity is not None and identity != self._peer:
            raise IdentityError(f"the node there is {identity!r}, not {self._peer!r}")
        assert self.transport is not None
        configure(cast("socket.socket", self.transport.get_extra_info("socket")))
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


def configure(connection: socket.socket) -> None:
    """No waiting for more to send, and a peer that vanished is noticed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_PEER_MS)
