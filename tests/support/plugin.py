"""A provider served in this process, and called as Terraform calls one: over gRPC, TLS and a unix socket."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from provider_shim.framework.provider import Provider
from provider_shim.framework.schema import Schema
from provider_shim.framework.types import Object
from provider_shim.protocol.convert import write_value
from provider_shim.protocol.messages import SERVICE, Method, methods
from provider_shim.protocol.server import PluginServer

Ask = Callable[..., Any]


def channel_of(line: str) -> grpc.Channel:
    """A channel to the plugin that printed this handshake."""
    _, _, _, address, _, certificate = line.split("|")
    body = base64.b64encode(base64.b64decode(certificate + "=" * (-len(certificate) % 4))).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode()
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.max_receive_message_length", -1)]
    return grpc.secure_channel(f"unix:{address}", grpc.ssl_channel_credentials(pem), options=options)


@contextmanager
def served(provider: Provider) -> Iterator[Ask]:
    """`ask("GetMetadata", field=...)`: the response, or the iterator of responses of a stream."""
    server = PluginServer(lambda: provider, with_certificate=True)
    server.server.start()
    server.prepare()
    table: dict[str, Method] = {each.name: each for each in methods()}
    with channel_of(server.handshake_line()) as channel:

        def call(name: str, /, **fields: Any) -> Any:
            method = table[name]
            make = channel.unary_stream if method.streams else channel.unary_unary
            remote = make(
                f"/{SERVICE}/{name}",
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            return remote(method.request(**fields), timeout=20)

        yield call
    server.stop()
    server.remove_socket()


def config(schema: Schema, **values: Any) -> Object:
    """What Terraform sends of a configuration: every attribute and block, also where nothing was written."""
    blocks = {name: block.absent for name, block in schema.blocks.items()}
    return {**dict.fromkeys(schema.attributes), **blocks, **values}


def wire(schema: Schema, value: Object | None) -> Any:
    return write_value(schema.codec, value)


def texts(diagnostics: Any) -> list[str]:
    return [f"{each.summary} {each.detail}" for each in diagnostics]
