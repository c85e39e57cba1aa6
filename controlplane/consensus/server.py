"""The raft process's door: the Log port of one node on a private unix socket.

The socket lies in a directory only this user can enter, and the other end must be the same user (or root). A front that
does not read its answers is not read from; one that follows the log is sent to as fast as it reads and no faster. A
node that leads while no front asks it for anything lets another one lead (see `attention`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import stat
import struct
from pathlib import Path
from typing import cast

import msgspec

from controlplane.consensus import engine, rpc
from controlplane.consensus.attention import PERIOD_S, Attention
from controlplane.consensus.framing import DECODE_ERRORS, FrameDecoder, encode_frame
from controlplane.consensus.node import RaftNode
from controlplane.consensus.stored import SnapshotReader
from controlplane.ports import (
    Committed,
    EntryTooLargeError,
    LogError,
    NoLeaderError,
    OutcomeUnknownError,
    RefusedError,
    SnapshotInterruptedError,
)

_log = logging.getLogger(__name__)

_MAX_PATH_BYTES = 107
_MAX_OPEN_CALLS = 4096
_STREAM_BATCH_BYTES = 256 << 10
_HANDOVER_S = 2.0
_PEERCRED = struct.Struct("3i")


async def serve(node: RaftNode, socket_path: Path, *, front_patience_s: float = math.inf) -> None:
    """Serve `node` (already started) until cancelled; then let another voter lead, if this one does, and stop it.

    It is also made to let another one lead when it does and no front has asked for anything for `front_patience_s`.
    Raises ConsensusError when the node fails, ValueError or OSError when the socket cannot be made.
    """
    attention = Attention(front_patience_s, engine.monotonic_s())
    server = LogServer(node, socket_path, attention)
    watching = asyncio.create_task(_lead_for_fronts(node, attention))
    try:
        await server.start()
        await node.wait_failed()
    except asyncio.CancelledError:
        # Fronts are still served, so what they write meanwhile reaches the new leader.
        await node.hand_over()
        raise
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        await server.stop()
        await node.stop()


async def _lead_for_fronts(node: RaftNode, attention: Attention) -> None:
    while True:
        await asyncio.sleep(PERIOD_S)
        if not attention.look(engine.monotonic_s()):
            continue
        status = await node.status()
        if status.role != "leader" or not status.peers:
            continue
        _log.warning("%s: leads, and no front asks for anything: another node is to lead", status.node)
        try:
            await node.transfer_leadership(None, timeout_s=_HANDOVER_S)
        except LogError as error:
            _log.warning("%s: goes on leading without a front: %s", status.node, error)


class LogServer:
    """The listening socket and its connections."""

    def __init__(self, node: RaftNode, socket_path: Path, attention: Attention | None = None) -> None:
        self.node = node
        self.attention = attention or Attention(math.inf, 0.0)
        self._path = socket_path
        self._server: asyncio.Server | None = None
        self.connections: set[_Front] = set()

    async def start(self) -> None:
        path = self._path
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            raise ValueError(f"socket_path: {path} is longer than {_MAX_PATH_BYTES} bytes")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.parent.stat()
        if mode.st_uid != os.geteuid() or stat.S_IMODE(mode.st_mode) & 0o077:
            raise ValueError(f"socket_path: {path.parent} must belong to this user and have mode 0700")
        # The data directory's lock says that no other process serves this node, so what lies here is stale.
        path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Front(self), str(path))
        path.chmod(0o600)

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._path.unlink(missing_ok=True)
        tasks = [task for connection in self.connections for task in connection.tasks]
        for connection in list(self.connections):
            connection.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Front(asyncio.Protocol):
    """One connection of a front process."""

    def __init__(self, server: LogServer) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._server = server
        self._decoder = FrameDecoder(rpc.MAX_FRAME_BYTES)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._following = False

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        raw = cast("socket.socket", transport.get_extra_info("socket")).getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size
        )
        uid: int = _PEERCRED.unpack(raw)[1]
        if uid not in (0, os.geteuid()):
            _log.warning("refused a connection of user %d", uid)
            self.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._decoder.feed(data):
                self._dispatch(rpc.request_decoder.decode(body))
        except DECODE_ERRORS as error:
            _log.warning("closing a front's connection: %s", error)
            self.abort()
        self._balance()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        for task in self.tasks:
            task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._balance()

    def resume_writing(self) -> None:
        self._writable.set()
        self._balance()

    def _balance(self) -> None:
        """Read only while answers leave and the number of open calls is bounded."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._writable.is_set() and len(self.tasks) < _MAX_OPEN_CALLS:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _dispatch(self, request: rpc.Request) -> None:
        if self._following:
            raise ValueError("a call on a connection that follows the log")
        self._server.attention.heard(engine.monotonic_s())
        match request:
            case rpc.AppendCall():
                work = self._append(request)
            case rpc.ReadIndexCall():
                work = self._read_index(request)
            case rpc.ConfirmLeadershipCall():
                work = self._confirm_leadership(request)
            case rpc.StatusCall():
                work = self._status(request)
            case rpc.AddMemberCall() | rpc.PromoteMemberCall() | rpc.RemoveMemberCall() | rpc.TransferCall():
                work = self._administer(request)
            case rpc.Follow():
                self._following = True
                work = self._stream(request.after)
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if len(self.tasks) == _MAX_OPEN_CALLS - 1:
            self._balance()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a front's call failed", exc_info=error)
            self.abort()

    def _send(self, message: msgspec.Struct) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(message))

    def _send_failure(self, call: int, error: LogError) -> None:
        for kind in (NoLeaderError, OutcomeUnknownError, EntryTooLargeError, RefusedError):
            if isinstance(error, kind):
                self._send(rpc.Failed(call, kind.__name__, str(error)))

    async def _append(self, request: rpc.AppendCall) -> None:
        try:
            position = await self._server.node.append(request.entry, timeout_s=request.timeout_s)
        except LogError as error:
            self._send_failure(request.call, error)
        else:
            self._send(rpc.AppendAnswer(request.call, position.index, position.term))

    async def _read_index(self, request: rpc.ReadIndexCall) -> None:
        try:
            index = await self._server.node.read_index(timeout_s=request.timeout_s)
        except LogError as error:
            self._send_failure(request.call, error)
        else:
            self._send(rpc.ReadIndexAnswer(request.call, index))

    async def _confirm_leadership(self, request: rpc.ConfirmLeadershipCall) -> None:
        try:
            led = await self._server.node.confirm_leadership(timeout_s=request.timeout_s)
        except LogError as error:
            self._send_failure(request.call, error)
        else:
            reign = led.reign
            self._send(rpc.ConfirmLeadershipAnswer(request.call, led.index, reign.term, reign.incarnation))

    async def _status(self, request: rpc.StatusCall) -> None:
        self._send(rpc.StatusAnswer(request.call, await self._server.node.status()))

    async def _administer(self, request: rpc.AdminCall) -> None:
        node, leader = self._server.node, ""
        try:
            match request:
                case rpc.AddMemberCall():
                    await node.add_member(request.member, timeout_s=request.timeout_s)
                case rpc.PromoteMemberCall():
                    await node.promote_member(request.node, timeout_s=request.timeout_s)
                case rpc.RemoveMemberCall():
                    await node.remove_member(request.node, timeout_s=request.timeout_s)
                case rpc.TransferCall():
                    leader = await node.transfer_leadership(request.target, timeout_s=request.timeout_s)
        except LogError as error:
            self._send_failure(request.call, error)
        else:
            self._send(rpc.DoneAnswer(request.call, leader))

    async def _stream(self, after: int) -> None:
        """Send the log as the other end reads it; the connection ends when the node does."""
        position = after
        try:
            while True:
                batch = await self._server.node.next_entries(position)
                if isinstance(batch, SnapshotReader):
                    position = batch.manifest.index
                    await self._stream_snapshot(batch)
                    continue
                position = batch[-1].index
                for part in _parts(batch):
                    self._send(rpc.Entries(part))
                    await self._writable.wait()
        except (NoLeaderError, SnapshotInterruptedError):
            self.abort()

    async def _stream_snapshot(self, reader: SnapshotReader) -> None:
        item, chunks = self._server.node.installed(reader)
        self._send(rpc.SnapshotBegin(item.index, item.term, item.header, item.count))
        frame: list[bytes] = []
        size = 0
        async for chunk in chunks:
            frame.append(chunk)
            size += len(chunk)
            if size > _STREAM_BATCH_BYTES:
                self._send(rpc.SnapshotChunks(frame))
                frame, size = [], 0
                await self._writable.wait()
        if frame:
            self._send(rpc.SnapshotChunks(frame))


def _parts(batch: list[Committed]) -> list[list[tuple[int, int, bytes]]]:
    """`batch` in frames of about `_STREAM_BATCH_BYTES`."""
    parts: list[list[tuple[int, int, bytes]]] = [[]]
    size = 0
    for entry in batch:
        if size > _STREAM_BATCH_BYTES:
            parts.append([])
            size = 0
        parts[-1].append((entry.index, entry.term, entry.data))
        size += len(entry.data)
    return parts
