"""The calls of a provider as gRPC wants them: by full name, each with its messages and its guarded behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from provider_shim.framework.provider import Provider
from provider_shim.protocol.guard import guarded
from provider_shim.protocol.messages import SERVICE, methods
from provider_shim.protocol.servicer import Servicer


def calls_of(provider: Provider) -> Mapping[str, Any]:
    handlers = Servicer(provider).handlers()
    table: dict[str, Any] = {}
    for method in methods():
        make = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
        table[f"/{SERVICE}/{method.name}"] = make(
            guarded(method, handlers[method.name]),
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )
    return table
