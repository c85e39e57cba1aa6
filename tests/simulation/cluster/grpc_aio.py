"""What stands for gRPC's runtime: the part of `grpc.aio` that agents and nodes use, over the simulated network.

The generated stubs, the servicers and everything above them are the real ones, and what they exchange are the bytes of
the real messages. A caller is known by its certificate, as TLS would have shown it. As in gRPC, a call whose caller is
gone, or whose deadline has passed, is cancelled where it is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NoReturn

import grpc
import msgspec
from grpc import aio
from simulation.cluster.loop import CURRENT, Process
from simulation.cluster.network import Connection, Network

SILENCE_S = 15.0
_CONNECT_S = 20.0
_OK = grpc.StatusCode.OK
_CODES = {code.name: code for code in grpc.StatusCode}


class _Frame(msgspec.Struct, array_like=True):
    """`open`: data is the method, caller the machine; `data`: a message; `done`: data is details, code the status."""

    kind: str
    data: bytes = b""
    code: str = ""
    caller: str = ""
    left_s: float = 0.0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Frame).decode


class Exchange:
    """Who serves where, and who shows which certificate. Its methods are those of the module `grpc.aio`."""

    AioRpcError = aio.AioRpcError
    UsageError = aio.UsageError

    def __init__(self, network: Network, certificate_of: Callable[[str], bytes]) -> None:
        self.network = network
        self.certificate_of = certificate_of
        self.serving: dict[str, SimulatedServer] = {}

    def secure_channel(self, address: str, credentials: object, options: object = None) -> _Channel:
        return _Channel(self, address)

    def server(self, options: object = None) -> SimulatedServer:
        return SimulatedServer(self)


class Credentials:
    """The module `grpc`, without reading certificates: who calls is known already."""

    StatusCode = grpc.StatusCode

    @staticmethod
    def ssl_channel_credentials(**_: object) -> None:
        return None

    @staticmethod
    def ssl_server_credentials(*_: object, **__: object) -> None:
        return None


def _serialized(message: Any) -> bytes:
    """The same bytes in every process: the order of a map's entries is otherwise chance."""
    return message.SerializeToString(deterministic=True)


def _error(code: str, details: str) -> aio.AioRpcError:
    return aio.AioRpcError(_CODES[code], aio.Metadata(), aio.Metadata(), details)


# -- the caller's side -------------------------------------------------------------------------------------------------


class _Channel:
    def __init__(self, exchange: Exchange, address: str) -> None:
        self._exchange = exchange
        self._address = address

    async def __aenter__(self) -> _Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Its calls were cancelled by whoever made them."""

    async def close(self, grace: float | None = None) -> None:
        """The same."""

    def stream_stream(self, method: str, *, response_deserializer: Any, **_: Any) -> Any:
        def call() -> _Call:
            return _Call(self._exchange, self._address, method, response_deserializer)

        return call

    def unary_unary(self, method: str, *, response_deserializer: Any, **_: Any) -> Any:
        async def call(request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as gRPC has it
            made = _Call(self._exchange, self._address, method, response_deserializer, timeout)
            try:
                async with asyncio.timeout(timeout):
                    await made.write(request)
                    answer = await made.read()
            except TimeoutError:
                raise _error("DEADLINE_EXCEEDED", "Deadline Exceeded") from None
            finally:
                made.cancel()
            if answer is aio.EOF:
                raise _error("INTERNAL", "no answer")
            return answer

        return call


class _Call:
    """Also a `StreamStreamCall`, as far as it is used."""

    def __init__(self, exchange: Exchange, address: str, method: str, deserialize: Any, left_s: float = 0.0) -> None:
        process = CURRENT.get()
        assert process is not None
        self._process = process
        self._exchange = exchange
        self._address = address
        self._deserialize = deserialize
        self._opening = _Frame("open", method.encode(), caller=process.machine.name, left_s=left_s)
        self._messages: asyncio.Queue[_Frame] = asyncio.Queue()
        self._done: _Frame | None = None
        self._connection: Connection | None = None
        self._waiting: list[bytes] = []
        chance = process.machine.chance
        # TCP and TLS take their turns before the first byte of the call arrives.
        process.post_after(4 * exchange.network.weather.delay_s[0] * 10 ** chance.random(), self._connect)

    def _connect(self) -> None:
        exchange, process = self._exchange, self._process
        if self._done is not None:
            return
        server = exchange.serving.get(self._address)
        network = exchange.network
        if server is not None and not network.reachable(process.machine.name, server.process.machine.name):
            process.post_after(_CONNECT_S, self._end, _Frame("done", b"failed to connect", "UNAVAILABLE"))
        elif server is None or not server.process.alive:
            self._end(_Frame("done", b"connection refused", "UNAVAILABLE"))
        else:
            served = _Served(server)
            self._connection = served.connection = Connection(
                network,
                process,
                server.process,
                taken=served.take,
                answered=self._answered,
                lost=lambda end: self._end(_LOST) if end == "client" else served.lost(),
                silence_s=SILENCE_S,
            )
            self._connection.up.put(_encode(self._opening))
            for data in self._waiting:
                self._connection.up.put(data)

    def _answered(self, data: bytes) -> None:
        frame = _decode(data)
        if frame.kind == "done":
            self._end(frame)
            assert self._connection is not None
            self._connection.close("client")
        else:
            self._messages.put_nowait(frame)

    def _end(self, frame: _Frame) -> None:
        if self._done is None:
            self._done = frame
            self._messages.put_nowait(frame)

    async def write(self, message: Any) -> None:
        if self._done is not None:
            raise asyncio.InvalidStateError("RPC is already done")
        data = _encode(_Frame("data", _serialized(message)))
        if self._connection is not None:
            self._connection.up.put(data)
        else:
            self._waiting.append(data)

    async def read(self) -> Any:
        frame = await self._messages.get()
        if frame.kind == "data":
            return self._deserialize(frame.data)
        self._messages.put_nowait(frame)
        if frame.code != _OK.name:
            raise _error(frame.code, frame.data.decode())
        return aio.EOF

    async def details(self) -> str:
        return self._done.data.decode() if self._done is not None else ""

    def cancel(self) -> None:
        if self._done is None:
            self._end(_Frame("done", b"Locally cancelled by application!", "CANCELLED"))
            if self._connection is not None:
                self._connection.close("client")


_LOST = _Frame("done", b"the connection was lost", "UNAVAILABLE")


# -- the server's side -------------------------------------------------------------------------------------------------


class SimulatedServer:
    def __init__(self, exchange: Exchange) -> None:
        process = CURRENT.get()
        assert process is not None
        self.process: Process = process
        self.methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self.exchange = exchange
        self._address = ""
        self.calls: dict[_Served, None] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[object]) -> None:
        """The registered ones are the same."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.methods.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def add_secure_port(self, address: str, credentials: object) -> int:
        held = self.exchange.serving.get(address)
        if held is not None and held.process.alive:
            raise RuntimeError(f"{address} is in use")
        self._address = address
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        self.exchange.serving[self._address] = self

    async def stop(self, grace: float | None) -> None:
        del self.exchange.serving[self._address]
        await asyncio.sleep(grace or 0.0)
        for call in list(self.calls):
            call.lost()


class _AbortError(Exception):
    pass


class _Served:
    """One call as it is served; also its `ServicerContext`."""

    def __init__(self, server: SimulatedServer) -> None:
        self._server = server
        self.connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()
        self._opening: _Frame | None = None
        self._ends_s = 0.0
        self._status = (_OK.name, "")

    def take(self, data: bytes) -> None:
        frame = _decode(data)
        if frame.kind == "open":
            self._opening = frame
            loop = asyncio.get_running_loop()
            self._ends_s = loop.time() + frame.left_s
            self._server.calls[self] = None
            self._task = loop.create_task(self._serve(self._server.methods[frame.data.decode()]))
        else:
            self._requests.put_nowait(frame.data)

    def lost(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _serve(self, handler: Any) -> None:
        try:
            if handler.stream_stream is not None:
                async for answer in handler.stream_stream(self._incoming(handler.request_deserializer), self):
                    self._send(_Frame("data", _serialized(answer)))
            else:
                request = handler.request_deserializer(await self._requests.get())
                answer = await handler.unary_unary(request, self)
                self._send(_Frame("data", _serialized(answer)))
        except _AbortError:
            pass
        except asyncio.CancelledError:
            self._status = ("CANCELLED", "cancelled")
            raise
        except Exception as error:
            self._status = ("UNKNOWN", f"Unexpected {type(error).__name__}: {error}")
            asyncio.get_running_loop().call_exception_handler({"message": "a call failed", "exception": error})
        finally:
            self._server.calls.pop(self, None)
            code, details = self._status
            self._send(_Frame("done", details.encode(), code))

    async def _incoming(self, deserialize: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        while True:
            yield deserialize(await self._requests.get())

    def _send(self, frame: _Frame) -> None:
        assert self.connection is not None
        self.connection.down.put(_encode(frame))

    # -- ServicerContext -----------------------------------------------------------------------------------------------

    def auth_context(self) -> dict[str, list[bytes]]:
        assert self._opening is not None
        return {"x509_pem_cert": [self._server.exchange.certificate_of(self._opening.caller)]}

    def peer(self) -> str:
        assert self.connection is not None
        return self.connection.ends["client"].name

    def time_remaining(self) -> float:
        return self._ends_s - asyncio.get_running_loop().time()

    def abort(self, code: grpc.StatusCode, details: str) -> Awaitable[NoReturn]:
        self._status = (code.name, details)

        async def end() -> NoReturn:
            raise _AbortError(details)

        return end()
