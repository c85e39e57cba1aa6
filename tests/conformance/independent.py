"""Judges the provider by pyvider's stubs: `python independent.py DESCRIPTOR EXECUTABLE`.

DESCRIPTOR is a serialized FileDescriptorProto of the provider's messages. Runs in an environment that has pyvider and
nothing of this repository. The exit code is 1 if anything differs or fails.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import msgpack
from google.protobuf import descriptor_pb2, unknown_fields
from google.protobuf.message import Message
from pyvider.protocols.tfprotov6.protobuf import tfplugin6_pb2 as pb
from pyvider.protocols.tfprotov6.protobuf.tfplugin6_pb2_grpc import ProviderStub

COOKIE = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2"
UNKNOWN = msgpack.ExtType(0, b"\x00")
TIMEOUT_S = 30
NAMESPACE = "flintlock_namespace"


# -- descriptors -------------------------------------------------------------------------------------------------------


def fields_of(file: descriptor_pb2.FileDescriptorProto) -> dict[str, object]:
    """Every field, enum value and call by its full name, with all that the wire depends on."""
    found: dict[str, object] = {}
    for where, message in _messages(file.message_type, ""):
        found[where] = "message"
        for field in message.field:
            group = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
            shape = (field.number, field.type, field.label, field.type_name, field.proto3_optional, group)
            found[f"{where}.{field.name}"] = shape
        found |= _values(message.enum_type, f"{where}.")
    found |= _values(file.enum_type, "")
    for call in file.service[0].method:
        shape = (call.input_type, call.output_type, call.client_streaming, call.server_streaming)
        found[f"rpc {call.name}"] = shape
    return found


def _messages(messages: Any, at: str) -> Iterator[tuple[str, descriptor_pb2.DescriptorProto]]:
    for message in messages:
        yield at + message.name, message
        yield from _messages(message.nested_type, f"{at}{message.name}.")


def _values(enums: Any, at: str) -> dict[str, object]:
    return {f"{at}{enum.name}.{value.name}": value.number for enum in enums for value in enum.value}


def compare(ours_file: Path) -> tuple[list[str], list[str], int]:
    """What differs, what only they have, and how much is the same."""
    ours = descriptor_pb2.FileDescriptorProto.FromString(ours_file.read_bytes())
    theirs = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    here, there = fields_of(ours), fields_of(theirs)
    differs = [
        f"{name}: ours {shape}, theirs {there.get(name)}" for name, shape in here.items() if shape != there.get(name)
    ]
    return differs, sorted(set(there) - set(here)), len(here) - len(differs)


# -- a client ----------------------------------------------------------------------------------------------------------


def dynamic(value: Any) -> Any:
    return pb.DynamicValue(msgpack=msgpack.packb(value))


def plain(value: Any) -> Any:
    return msgpack.unpackb(value.msgpack, ext_hook=lambda *_: UNKNOWN)


def told(answer: Any) -> list[str]:
    return [f"{each.summary} {each.detail}" for each in answer.diagnostics]


class Client:
    """Calls by the names of the protocol; every answer must be wholly known to the stubs."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = ProviderStub(channel)
        self.called: list[str] = []

    def __call__(self, call: str, /, **fields: Any) -> Any:
        self.called.append(call)
        request = getattr(pb, call).Request(**fields)
        answer = getattr(self._stub, call)(request, timeout=TIMEOUT_S)
        if call in ("ListResource", "InvokeAction"):
            answer = list(answer)
            for each in answer:
                _assert_known(each, call)
        else:
            _assert_known(answer, call)
        return answer


def _assert_known(message: Message, where: str) -> None:
    assert not list(unknown_fields.UnknownFieldSet(message)), f"{where}: a field that the stubs do not know"
    for field, value in message.ListFields():
        inner = [value] if isinstance(value, Message) else value.values() if hasattr(value, "values") else value
        for each in inner if field.message_type is not None else ():
            if isinstance(each, Message):
                _assert_known(each, f"{where}.{field.name}")


def drive(ask: Client) -> None:
    """The life of a resource, and a call of everything else. Raises AssertionError."""
    schema = ask("GetProviderSchema")
    metadata = ask("GetMetadata")
    assert told(schema) == told(metadata) == []
    assert sorted(schema.resource_schemas) == [each.type_name for each in metadata.resources]
    assert sorted(schema.action_schemas) == [each.type_name for each in metadata.actions]
    assert sorted(ask("GetFunctions").functions) == sorted(schema.functions)
    assert sorted(ask("GetResourceIdentitySchemas").identity_schemas) == sorted(schema.resource_schemas)
    nothing = {each.name: None for each in schema.provider.block.attributes}
    assert told(ask("ValidateProviderConfig", config=dynamic(nothing))) == []
    assert told(ask("ConfigureProvider", terraform_version="1.15.5", config=dynamic(nothing))) == []
    _resource(ask, schema.resource_schemas[NAMESPACE])
    _rest(ask, schema)
    assert ask("StopProvider").Error == ""


def _empty(schema: Any) -> dict[str, Any]:
    names = [each.name for each in schema.block.attributes] + [each.type_name for each in schema.block.block_types]
    return dict.fromkeys(names)


def _resource(ask: Client, schema: Any) -> None:
    config = {**_empty(schema), "name": "made"}
    kind = {"type_name": NAMESPACE}
    assert told(ask("ValidateResourceConfig", **kind, config=dynamic(config))) == []
    assert "NO" in told(ask("ValidateResourceConfig", **kind, config=dynamic({**config, "name": "NO"})))[0]
    plan = ask(
        "PlanResourceChange",
        **kind,
        prior_state=dynamic(None),
        proposed_new_state=dynamic(config),
        config=dynamic(config),
    )
    assert told(plan) == []
    assert plain(plan.planned_state)["uid"] == UNKNOWN
    made = ask(
        "ApplyResourceChange",
        **kind,
        prior_state=dynamic(None),
        planned_state=plan.planned_state,
        config=dynamic(config),
        planned_private=plan.planned_private,
    )
    assert told(made) == []
    state = plain(made.new_state)
    assert state["name"] == "made"
    assert isinstance(state["uid"], str)
    assert plain(made.new_identity.identity_data) == {"name": "made"}
    read = ask("ReadResource", **kind, current_state=made.new_state, private=made.private)
    assert (told(read), plain(read.new_state)) == ([], state)
    raw = pb.RawState(json=json.dumps(state).encode())
    assert plain(ask("UpgradeResourceState", **kind, version=0, raw_state=raw).upgraded_state) == state
    identity = pb.RawState(json=b'{"name": "made"}')
    upgraded = ask("UpgradeResourceIdentity", **kind, version=0, raw_identity=identity)
    assert plain(upgraded.upgraded_identity.identity_data) == {"name": "made"}
    (imported,) = ask("ImportResourceState", **kind, id="made").imported_resources
    assert plain(imported.state)["name"] == "made"
    moved = ask("MoveResourceState", source_type_name=NAMESPACE, source_state=raw, target_type_name=NAMESPACE)
    assert plain(moved.target_state) == state
    assert plain(ask("GenerateResourceConfig", **kind, state=made.new_state).config)["name"] == "made"
    gone = {"prior_state": made.new_state, "planned_state": dynamic(None), "config": dynamic(None)}
    ended = ask("ApplyResourceChange", **kind, **gone, planned_private=made.private)
    assert (told(ended), plain(ended.new_state)) == ([], None)


def _rest(ask: Client, schema: Any) -> None:
    hosts = {"type_name": "flintlock_hosts", "config": dynamic(_empty(schema.data_source_schemas["flintlock_hosts"]))}
    assert told(ask("ValidateDataResourceConfig", **hosts)) == []
    assert [each["name"] for each in plain(ask("ReadDataSource", **hosts).state)["hosts"]] == ["h1"]

    assert plain(ask("CallFunction", name="memory_in_mb", arguments=[dynamic("1Gi")]).result) == 1024
    refused = ask("CallFunction", name="memory_in_mb", arguments=[dynamic("much")]).error
    assert ("much" in refused.text, refused.function_argument) == (True, 0)

    listing = dynamic(_empty(schema.list_resource_schemas["flintlock_microvm"]))
    query = {"type_name": "flintlock_microvm", "config": listing}
    assert told(ask("ValidateListResourceConfig", **query)) == []
    (found,) = ask("ListResource", **query, include_resource_object=True, limit=10)
    assert (found.display_name, plain(found.resource_object)["vcpu"]) == ("demo/web", 1)

    token = _empty(schema.ephemeral_resource_schemas["flintlock_api_token"])
    opening = {"type_name": "flintlock_api_token", "config": dynamic({**token, "ttl": "5m", "user": "conformance"})}
    assert told(ask("ValidateEphemeralResourceConfig", **opening)) == []
    opened = ask("OpenEphemeralResource", **opening)
    assert (told(opened), plain(opened.result)["secret"][:4]) == ([], "flk_")
    of = {"type_name": "flintlock_api_token", "private": opened.private}
    assert "is not renewed" in told(ask("RenewEphemeralResource", **of))[0]
    assert told(ask("CloseEphemeralResource", **of)) == []

    action = {"config": dynamic({"host": "h1"})}
    assert told(ask("ValidateActionConfig", type_name="flintlock_host_uncordon", **action)) == []
    assert told(ask("PlanAction", action_type="flintlock_host_uncordon", **action)) == []
    progress, completed = ask("InvokeAction", action_type="flintlock_host_uncordon", **action)
    assert progress.progress.message == "host h1: microVMs may come again"
    assert told(completed.completed) == []


# -- the executable ----------------------------------------------------------------------------------------------------


def with_provider(executable: Path, work: Callable[[Client], None]) -> list[str]:
    """Start it as go-plugin does, do the work, end it. Gives the names of the calls that were made."""
    environment = {**os.environ, "TF_PLUGIN_MAGIC_COOKIE": COOKIE, "PLUGIN_CLIENT_CERT": "any"}
    with subprocess.Popen([executable], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            core, protocol, network, address, kind, certificate = process.stdout.readline().rstrip("\n").split("|")
            assert (core, protocol, network, kind) == ("1", "6", "unix", "grpc")
            der = base64.b64decode(certificate + "=" * (-len(certificate) % 4))
            pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"
            credentials = grpc.ssl_channel_credentials(pem.encode())
            options = [("grpc.ssl_target_name_override", "localhost")]
            with grpc.secure_channel(f"unix:{address}", credentials, options=options) as channel:
                client = Client(channel)
                work(client)
                channel.unary_unary("/plugin.GRPCController/Shutdown")(b"", timeout=TIMEOUT_S)
            assert process.wait(TIMEOUT_S) == 0
        finally:
            process.kill()
    return client.called


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(ours: Path, executable: Path) -> int:
    differs, missing, same = compare(ours)
    for each in differs:
        say(f"DIFFERS  {each}")
    say(f"{same} messages, fields, enum values and calls are the same; {len(differs)} differ")
    absent = sorted({name.split(".")[0] for name in missing if not name.startswith("rpc ")})
    say(f"only theirs, of later minor versions: {', '.join(absent)}")
    called = with_provider(executable, drive)
    file = descriptor_pb2.FileDescriptorProto.FromString(ours.read_bytes())
    uncalled = {call.name for call in file.service[0].method} - set(called)
    for each in sorted(uncalled):
        say(f"UNCALLED {each}")
    say(f"{len(called)} calls of {len(set(called))} kinds by their client, each answer as expected")
    return 1 if differs or uncalled else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
