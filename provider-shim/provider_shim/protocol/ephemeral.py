"""The calls of the protocol about ephemeral resources; see `framework.ephemeral`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import ProviderError, error
from provider_shim.framework.ephemeral import EphemeralResource, validate
from provider_shim.framework.provider import Provider
from provider_shim.framework.types import Object
from provider_shim.protocol.convert import (
    PROVIDER_CONFIG_UNKNOWN,
    read_private,
    read_value,
    write_diagnostics,
    write_private,
    write_value,
)

Message: TypeAlias = Any


class EphemeralCalls:
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def validate(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        config: Object = read_value(resource.schema.codec, request.config) or {}
        response.diagnostics.extend(write_diagnostics(validate(resource, config).items))

    def open(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        codec = resource.schema.codec
        if self._provider.deferred and request.client_capabilities.deferral_allowed:
            response.deferred.reason = PROVIDER_CONFIG_UNKNOWN
            response.result.CopyFrom(request.config)
            return
        config: Object = read_value(codec, request.config)
        call = Call(cancel=self._provider.cancel)
        try:
            response.result.CopyFrom(write_value(codec, resource.open(call, config)))
        except ProviderError as problem:
            call.report.extend(problem.diagnostics)
        response.private = write_private(call.private)
        response.diagnostics.extend(write_diagnostics(call.report.items))

    def renew(self, request: Message, _response: Message) -> None:
        resource = self._resource(request.type_name)
        raise error(f"{resource.type_name} is not renewed", "It is opened for as long as it is good.")

    def close(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        call = Call(private=read_private(request.private))
        try:
            resource.close(call)
        except ProviderError as problem:
            call.report.extend(problem.diagnostics)
        response.diagnostics.extend(write_diagnostics(call.report.items))

    def handlers(self) -> Mapping[str, Any]:
        return {
            "ValidateEphemeralResourceConfig": self.validate,
            "OpenEphemeralResource": self.open,
            "RenewEphemeralResource": self.renew,
            "CloseEphemeralResource": self.close,
        }

    def _resource(self, name: str) -> EphemeralResource:
        resource = self._provider.ephemeral_resources.get(name)
        if resource is None:
            raise error(f"There is no ephemeral resource {name}", "This provider declares none of that name.")
        return resource
