"""The calls to a Flintlock host: authenticated, bounded in time, and failing with DriverErrors that say what to do.

Flintlock answers every error of its use cases with UNKNOWN and a text, so the code alone says only whose fault it is
and whether the call may have taken effect.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Iterable
from typing import TypeVar

import grpc
import grpc.aio

from controlplane.drivers.flintlockd.settings import FlintlockdSettings
from controlplane.ports import DriverError
from controlplane.wire.flintlock.types import microvm_pb2 as types
from controlplane.wire.microvm.services.api.v1alpha1 import microvms_pb2 as api
from controlplane.wire.microvm.services.api.v1alpha1 import microvms_pb2_grpc as rpc

T = TypeVar("T")

MAX_MESSAGE_BYTES = 16 << 20
MAX_RECONNECT_BACKOFF_MS = 5_000

_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT: ("InvalidRequest", False),
    grpc.StatusCode.UNAUTHENTICATED: ("Unauthenticated", False),
    grpc.StatusCode.PERMISSION_DENIED: ("PermissionDenied", False),
    grpc.StatusCode.UNIMPLEMENTED: ("Unsupported", False),
}
"""The host certainly did nothing; (code of the DriverError, retryable)."""
_ANSWERS = {
    **_REFUSALS,
    grpc.StatusCode.UNKNOWN: ("HypervisorFailed", True),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("HostBusy", True),
    grpc.StatusCode.UNAVAILABLE: ("HostUnreachable", True),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("HostTimeout", True),
}


class CallError(DriverError):
    """A call that failed. `answered` tells that the host has finished with it, whatever it did."""

    def __init__(self, endpoint: str, call: str, status: grpc.StatusCode, detail: str) -> None:
        code, retryable = _ANSWERS.get(status, ("HypervisorFailed", True))
        super().__init__(code, f"flintlock at {endpoint}: {call}: {detail or status.name}", retryable=retryable)
        self.status = status
        self.certainly_not_done = status in _REFUSALS
        self.answered = self.certainly_not_done or status is grpc.StatusCode.UNKNOWN


class FlintlockClient:
    """One channel, of the event loop in which it was made."""

    def __init__(self, settings: FlintlockdSettings) -> None:
        self._endpoint = settings.endpoint
        self._timeout_s = settings.call_timeout_s
        credential = base64.b64encode(settings.token.encode()).decode()
        self._metadata = (("authorization", f"Basic {credential}"),) if settings.token else ()
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_BACKOFF_MS),
        ]
        if settings.ca_file is None:
            self._channel = grpc.aio.insecure_channel(settings.endpoint, options=options)
        else:
            self._channel = grpc.aio.secure_channel(settings.endpoint, _credentials(settings), options=options)
        self._stub = rpc.MicroVMStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, name: str, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise CallError(self._endpoint, name, error.code(), error.details() or "") from error

    async def create(self, spec: types.MicroVMSpec) -> types.MicroVM:
        """Not idempotent. Raises CallError."""
        request = api.CreateMicroVMRequest(microvm=spec)
        call = self._stub.CreateMicroVM(request, timeout=self._timeout_s, metadata=self._metadata)
        return (await self._call("CreateMicroVM", call)).microvm

    async def delete(self, native_id: str) -> None:
        """Asks for the deletion, which goes on in the background. Raises CallError, also for what does not exist."""
        request = api.DeleteMicroVMRequest(uid=native_id)
        call = self._stub.DeleteMicroVM(request, timeout=self._timeout_s, metadata=self._metadata)
        await self._call("DeleteMicroVM", call)

    async def list(self, namespaces: Iterable[str], *, name: str | None = None) -> list[types.MicroVM]:
        """Everything (of this name) in these namespaces, or CallError: never a part of it."""
        requests = [api.ListMicroVMsRequest(namespace=namespace, name=name) for namespace in sorted(set(namespaces))]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._list_or_error(request)) for request in requests]
        found: list[types.MicroVM] = []
        for task in tasks:
            result = task.result()
            if isinstance(result, CallError):
                raise result
            found += result
        return found

    async def _list_or_error(self, request: api.ListMicroVMsRequest) -> list[types.MicroVM] | CallError:
        """The error as a value, so that it does not reach the caller as a group of errors."""
        # As a stream, because a host's whole answer may exceed what one message may hold.
        stream = self._stub.ListMicroVMsStream(request, timeout=self._timeout_s, metadata=self._metadata)
        try:
            return [message.microvm async for message in stream]
        except grpc.aio.AioRpcError as error:
            return CallError(self._endpoint, "ListMicroVMsStream", error.code(), error.details() or "")


def _credentials(settings: FlintlockdSettings) -> grpc.ChannelCredentials:
    try:
        ca = settings.ca_file.read_bytes() if settings.ca_file else None
        certificate = settings.cert_file.read_bytes() if settings.cert_file else None
        key = settings.key_file.read_bytes() if settings.key_file else None
    except OSError as error:
        raise DriverError("CredentialsUnavailable", f"cannot read {error.filename}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)
