"""A Flintlock host's v1alpha1 gRPC service in memory, with upstream's behaviour and switches for its failures.

It keeps to what is known of the real service: it assigns the uid (a ULID) and never looks for an earlier create of the
same name, fills in the namespace, a missing name, the provider, the instance id in `meta-data` and a metadata
interface, validates as upstream does, answers errors of the use case with UNKNOWN and malformed requests with
INVALID_ARGUMENT, creates and deletes in the background, and has no update. What it runs is nothing: a microVM here is
a record that becomes CREATED.

    python -m tests.support.flintlock_server --listen 127.0.0.1:9090 --token-file FILE
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hmac
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2

from controlplane.system import Ulids
from controlplane.wire.flintlock.types import microvm_pb2 as types
from controlplane.wire.microvm.services.api.v1alpha1 import microvms_pb2 as api
from controlplane.wire.microvm.services.api.v1alpha1 import microvms_pb2_grpc as rpc

State = types.MicroVMStatus


@dataclass
class Faults:
    """What goes wrong; counters count down."""

    slow_create_s: float = 0.0
    """How long a create takes until it is stored; it is stored even when the caller has given up."""
    drop_create_replies: int = 0
    """Stored, and the connection breaks before the answer."""
    refuse_creates: int = 0
    """Nothing is stored; the answer is an error of the use case."""
    fail_guests: int = 0
    """Stored, and ends in FAILED."""
    stay_pending: bool = False
    unavailable: bool = False
    """Every call fails as if nobody listened."""
    refuse_deletes: int = 0


@dataclass
class Calls:
    """How often each call reached the service."""

    create: int = 0
    delete: int = 0
    list: int = 0
    create_began: asyncio.Event = field(default_factory=asyncio.Event)


class RefusalError(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _invalid(message: str) -> RefusalError:
    return RefusalError(grpc.StatusCode.INVALID_ARGUMENT, message)


def _failed(message: str) -> RefusalError:
    return RefusalError(grpc.StatusCode.UNKNOWN, message)


class FlintlockService(rpc.MicroVMServicer):
    """`microvms` may be read and changed by tests: by uid, in order of creation."""

    def __init__(self, *, token: str = "", pending_s: float = 0.0, deleting_s: float = 0.0) -> None:
        self.microvms: dict[str, types.MicroVM] = {}
        self.faults = Faults()
        self.calls = Calls()
        self._token = token
        self._pending_s = pending_s
        self._deleting_s = deleting_s
        self._ids = Ulids()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- the background

    def _in_background(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _store(self, spec: types.MicroVMSpec) -> types.MicroVM:
        if self.faults.slow_create_s:
            await asyncio.sleep(self.faults.slow_create_s)
        spec.uid = self._ids.new()
        spec.created_at.GetCurrentTime()
        if "meta-data" not in spec.metadata:
            spec.metadata["meta-data"] = base64.b64encode(f"instance_id: {spec.uid}\n".encode()).decode()
        if all(interface.device_id != "eth0" for interface in spec.interfaces):
            metadata = types.NetworkInterface(device_id="eth0", type=types.NetworkInterface.TAP)
            metadata.guest_mac = "AA:FF:00:00:00:01"
            metadata.address.address = "169.254.0.1/16"
            spec.interfaces.append(metadata)
        microvm = types.MicroVM(spec=spec, status=State(state=State.PENDING))
        self.microvms[spec.uid] = microvm
        if self._pending_s:
            self._in_background(self._run(microvm))
        else:
            await self._run(microvm)
        return microvm

    async def _run(self, microvm: types.MicroVM) -> None:
        if self._pending_s:
            await asyncio.sleep(self._pending_s)
        if self.faults.stay_pending or microvm.status.state != State.PENDING:
            return
        if self.faults.fail_guests > 0:
            self.faults.fail_guests -= 1
            microvm.status.state = State.FAILED
            microvm.status.retry = 11
            return
        for index, interface in enumerate(microvm.spec.interfaces):
            status = microvm.status.network_interfaces[interface.device_id]
            status.host_device_name = f"fltap{microvm.spec.uid[-6:].lower()}{index}"
            status.index = index
            status.mac_address = interface.guest_mac or "02:" + ":".join(secrets.token_hex(1) for _ in range(5))
        microvm.status.state = State.CREATED

    async def _remove(self, uid: str) -> None:
        if self._deleting_s:
            await asyncio.sleep(self._deleting_s)
        self.microvms.pop(uid, None)

    # -- what upstream refuses

    def _validate(self, spec: types.MicroVMSpec) -> None:
        problem = None
        if not 1 <= spec.vcpu <= 64:
            problem = "'MicroVM.Spec.VCPU' must be from 1 to 64"
        elif not 1024 <= spec.memory_in_mb <= 32768:
            problem = "'MicroVM.Spec.MemoryInMb' must be from 1024 to 32768"
        elif not spec.root_volume.id or not spec.root_volume.source.container_source:
            problem = "'MicroVM.Spec.RootVolume' is required and cannot be virtiofs"
        elif sum(volume.source.HasField("virtiofs_source") for volume in spec.additional_volumes) > 1:
            problem = "'MicroVM.Spec.AdditionalVolumes' failed on 'onlyOneVirtioFS'"
        elif not spec.kernel.image:
            problem = "'MicroVM.Spec.Kernel.Image' failed on 'imageURI'"
        if problem:
            raise _failed(f"an error occurred when attempting to validate microvm spec: {problem}")
        try:
            for value in spec.metadata.values():
                base64.b64decode(value, validate=True)
        except ValueError as error:
            raise _failed("decoding existing instance metadata: illegal base64 data") from error
        known = self.microvms.get(spec.uid)
        if known is not None and (known.spec.id, known.spec.namespace) == (spec.id, spec.namespace):
            raise _failed(f"spec {spec.namespace}/{spec.id}/{spec.uid} already exists")

    # -- the service

    async def _create(self, request: api.CreateMicroVMRequest) -> api.CreateMicroVMResponse:
        self.calls.create += 1
        self.calls.create_began.set()
        if not request.HasField("microvm"):
            raise _invalid("invalid create microvm request: MicroVMSpec required")
        spec = types.MicroVMSpec()
        spec.CopyFrom(request.microvm)
        self._validate(spec)
        if self.faults.refuse_creates > 0:
            self.faults.refuse_creates -= 1
            raise _failed("creating microvm: saving microvm spec: no space left on device")
        spec.namespace = spec.namespace or "default"
        spec.id = spec.id or f"mvm-{secrets.token_hex(5)}"
        spec.provider = spec.provider or "firecracker"
        microvm = await asyncio.shield(self._in_background(self._store(spec)))
        if self.faults.drop_create_replies > 0:
            self.faults.drop_create_replies -= 1
            raise RefusalError(grpc.StatusCode.UNAVAILABLE, "error reading from server: EOF")
        return api.CreateMicroVMResponse(microvm=microvm)

    async def _delete(self, request: api.DeleteMicroVMRequest) -> empty_pb2.Empty:
        self.calls.delete += 1
        if not request.uid:
            raise _invalid("invalid delete microvm request: uid required")
        if request.uid not in self.microvms:
            raise _failed(f"checking to see if spec exists: microvm spec {request.uid} not found")
        if self.faults.refuse_deletes > 0:
            self.faults.refuse_deletes -= 1
            raise _failed("marking microvm spec for deletion: database is locked")
        microvm = self.microvms[request.uid]
        microvm.status.state = State.DELETING
        microvm.spec.deleted_at.GetCurrentTime()
        removal = self._in_background(self._remove(request.uid))
        if not self._deleting_s:
            await removal
        return empty_pb2.Empty()

    async def _get(self, request: api.GetMicroVMRequest) -> api.GetMicroVMResponse:
        if not request.uid:
            raise _invalid("invalid get microvm request: uid required")
        if request.uid not in self.microvms:
            raise _failed(f"getting microvm: microvm spec {request.uid} not found")
        return api.GetMicroVMResponse(microvm=self.microvms[request.uid])

    def _select(self, request: api.ListMicroVMsRequest) -> list[types.MicroVM]:
        self.calls.list += 1
        return [
            microvm
            for microvm in self.microvms.values()
            if request.namespace in {"", microvm.spec.namespace}
            and (not request.HasField("name") or request.name == microvm.spec.id)
        ]

    async def _answer(self, context: grpc.aio.ServicerContext[Any, Any], work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            self._admit(context)
            return await work()
        except RefusalError as refusal:
            await context.abort(refusal.code, refusal.message)

    def _admit(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """`authorization: Basic base64(TOKEN)`, compared in constant time."""
        if self.faults.unavailable:
            raise RefusalError(grpc.StatusCode.UNAVAILABLE, "connection refused")
        metadata = dict(context.invocation_metadata() or ())
        scheme, _, credential = str(metadata.get("authorization", "")).partition(" ")
        expected = base64.b64encode(self._token.encode())
        if self._token and not (scheme.lower() == "basic" and hmac.compare_digest(credential.encode(), expected)):
            raise RefusalError(grpc.StatusCode.UNAUTHENTICATED, "invalid auth token")

    async def CreateMicroVM(self, request: api.CreateMicroVMRequest, context: Any) -> api.CreateMicroVMResponse:
        return await self._answer(context, lambda: self._create(request))

    async def DeleteMicroVM(self, request: api.DeleteMicroVMRequest, context: Any) -> empty_pb2.Empty:
        return await self._answer(context, lambda: self._delete(request))

    async def GetMicroVM(self, request: api.GetMicroVMRequest, context: Any) -> api.GetMicroVMResponse:
        return await self._answer(context, lambda: self._get(request))

    async def ListMicroVMs(self, request: api.ListMicroVMsRequest, context: Any) -> api.ListMicroVMsResponse:
        async def select() -> api.ListMicroVMsResponse:
            return api.ListMicroVMsResponse(microvm=self._select(request))

        return await self._answer(context, select)

    async def ListMicroVMsStream(
        self, request: api.ListMicroVMsRequest, context: Any
    ) -> AsyncIterator[api.ListMessage]:
        async def select() -> list[types.MicroVM]:
            if not request.namespace:
                raise _invalid("invalid list microvms request: namespace required")
            return self._select(request)

        for microvm in await self._answer(context, select):
            yield api.ListMessage(microvm=microvm)


@dataclass(frozen=True, slots=True)
class ServerTls:
    certificate: bytes
    key: bytes
    client_ca: bytes | None = None
    """Given: only clients with a certificate of this CA are served."""


@contextlib.asynccontextmanager
async def serving(
    service: FlintlockService, *, listen: str = "127.0.0.1:0", tls: ServerTls | None = None
) -> AsyncGenerator[str]:
    """Serve until the block ends; gives the address, `127.0.0.1:PORT`."""
    server = grpc.aio.server()
    rpc.add_MicroVMServicer_to_server(service, server)
    if tls is None:
        port = server.add_insecure_port(listen)
    else:
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)], tls.client_ca, require_client_auth=tls.client_ca is not None
        )
        port = server.add_secure_port(listen, credentials)
    await server.start()
    try:
        yield f"{listen.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(None)
        await service.close()


def _tls(options: argparse.Namespace) -> ServerTls | None:
    if not options.tls_cert:
        return None
    client_ca = Path(options.tls_client_ca).read_bytes() if options.tls_client_ca else None
    return ServerTls(Path(options.tls_cert).read_bytes(), Path(options.tls_key).read_bytes(), client_ca)


async def _main(options: argparse.Namespace, token: str, tls: ServerTls | None) -> None:
    service = FlintlockService(token=token, pending_s=options.pending_s, deleting_s=options.deleting_s)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(service, listen=options.listen, tls=tls) as address:
        sys.stdout.write(f"flintlock stand-in (runs nothing) at {address}\n")
        sys.stdout.flush()
        await stop.wait()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve Flintlock's v1alpha1 API from memory.")
    parser.add_argument("--listen", default="127.0.0.1:9090")
    parser.add_argument("--token-file", help="holds the token that clients must send")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--tls-client-ca", help="serve only clients with a certificate of this CA")
    parser.add_argument("--pending-s", type=float, default=1.0, help="how long a microVM stays PENDING")
    parser.add_argument("--deleting-s", type=float, default=0.2, help="how long a microVM stays DELETING")
    return parser.parse_args()


if __name__ == "__main__":
    parsed = _parse()
    secret = Path(parsed.token_file).read_text(encoding="utf-8").strip() if parsed.token_file else ""
    asyncio.run(_main(parsed, secret, _tls(parsed)))
