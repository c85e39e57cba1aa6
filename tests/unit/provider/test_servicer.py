"""The 28 calls, over a real gRPC connection to a provider in this process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from provider_shim.framework.types import UNKNOWN, Object
from provider_shim.protocol.convert import read_value, write_value
from provider_shim.protocol.messages import message, methods
from provider_shim.protocol.server import PluginServer, started_by_terraform
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.namespace import NamespaceResource
from provider_shim.resources.provider import FlintlockProvider
from support.plugin import Ask, channel_of, served, texts

CODEC = NamespaceResource.schema.codec
NOTHING: Object = dict.fromkeys((*NamespaceResource.schema.attributes, *NamespaceResource.schema.blocks))


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """`ask("GetMetadata", field=...)`: the response, or the list of responses of a stream."""
    with served(FlintlockProvider()) as call:
        streams = {each.name for each in methods() if each.streams}

        def whole(name: str, /, **fields: Any) -> Any:
            return list(call(name, **fields)) if name in streams else call(name, **fields)

        yield whole


def test_schemas_of_everything_are_there(ask: Ask) -> None:
    schema = ask("GetProviderSchema")
    metadata = ask("GetMetadata")
    assert sorted(schema.resource_schemas) == [each.type_name for each in metadata.resources]
    assert sorted(schema.data_source_schemas) == [each.type_name for each in metadata.data_sources]
    assert sorted(schema.list_resource_schemas) == [each.type_name for each in metadata.list_resources]
    assert sorted(schema.functions) == [each.name for each in metadata.functions]
    assert set(schema.list_resource_schemas) <= set(schema.resource_schemas)
    assert sorted(schema.action_schemas) == [each.type_name for each in metadata.actions]
    assert sorted(schema.ephemeral_resource_schemas) == [each.type_name for each in metadata.ephemeral_resources]
    token = {each.name: each for each in schema.ephemeral_resource_schemas["flintlock_api_token"].block.attributes}
    assert token["secret"].sensitive
    assert sorted(schema.resource_schemas) == sorted(ask("GetResourceIdentitySchemas").identity_schemas)
    microvm = {each.name: each for each in schema.resource_schemas["flintlock_microvm"].block.attributes}
    assert microvm["metadata"].sensitive
    assert (microvm["power_state"].optional, microvm["power_state"].computed) == (True, True)
    assert not microvm["vcpu"].computed
    actions = [each.schema for each in schema.action_schemas.values()]
    assert not any(each.computed for action in actions for each in action.block.attributes)
    for block in (*schema.resource_schemas.values(), *actions):
        assert all(each.description for each in block.block.attributes)


def test_what_is_not_declared_is_refused_by_name(ask: Ask) -> None:
    assert "no function parse" in ask("CallFunction", name="parse").error.text
    for call in ("Validate", "Open", "Renew", "Close"):
        suffix = "EphemeralResourceConfig" if call == "Validate" else "EphemeralResource"
        assert "no ephemeral resource e" in texts(ask(f"{call}{suffix}", type_name="e").diagnostics)[0]
    assert "no list resource l" in texts(ask("ValidateListResourceConfig", type_name="l").diagnostics)[0]
    assert "no list resource l" in texts(ask("ListResource", type_name="l")[0].diagnostic)[0]
    assert "no action a" in texts(ask("ValidateActionConfig", type_name="a").diagnostics)[0]
    assert "no action a" in texts(ask("PlanAction", action_type="a").diagnostics)[0]
    assert "no action a" in texts(ask("InvokeAction", action_type="a")[0].completed.diagnostics)[0]
    for call in ("ReadResource", "PlanResourceChange", "ApplyResourceChange", "ImportResourceState"):
        assert "no resource type nope" in texts(ask(call, type_name="nope").diagnostics)[0]
    assert "no data source nope" in texts(ask("ReadDataSource", type_name="nope").diagnostics)[0]


def test_every_call_of_the_protocol_is_answered(ask: Ask) -> None:
    assert len(methods()) == 28
    for method in methods():
        if method.name != "StopProvider":
            ask(method.name)


def test_a_bug_is_a_diagnostic_with_a_correlation_id(ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    state = message("DynamicValue")(msgpack=b"\xc1")
    found = ask("ReadResource", type_name="flintlock_namespace", current_state=state).diagnostics
    assert len(found) == 1
    match = re.search(r"\[([0-9a-f]{8})\]", found[0].summary)
    assert match
    assert "Traceback" not in f"{found[0].summary}{found[0].detail}"
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("correlation") == match[1]]
    assert [line["@level"] for line in mine] == ["error"]
    assert "Traceback" in mine[0]["@message"]


def test_an_apply_that_meets_a_bug_keeps_the_prior_state(ask: Ask) -> None:
    prior = write_value(CODEC, {**NOTHING, "name": "demo", "id": "demo", "uid": "u"})
    answer = ask(
        "ApplyResourceChange",
        type_name="flintlock_namespace",
        prior_state=prior,
        planned_state=message("DynamicValue")(msgpack=b"\xc1"),
    )
    assert len(answer.diagnostics) == 1
    assert answer.new_state == prior


def test_a_large_message_passes(ask: Ask) -> None:
    codec = MicroVMResource.schema.codec
    state: Object = dict.fromkeys((*MicroVMResource.schema.attributes, *MicroVMResource.schema.blocks))
    state["metadata"] = {"user-data": "x" * (6 * 1024 * 1024)}
    answer = ask("ValidateResourceConfig", type_name="flintlock_microvm", config=write_value(codec, state))
    assert not answer.diagnostics


def test_plan_of_a_create_an_update_and_a_destroy(ask: Ask) -> None:
    config = {**NOTHING, "name": "demo"}
    created = ask(
        "PlanResourceChange",
        type_name="flintlock_namespace",
        prior_state=write_value(CODEC, None),
        proposed_new_state=write_value(CODEC, config),
        config=write_value(CODEC, config),
    )
    planned = read_value(CODEC, created.planned_state)
    assert (planned["id"], planned["uid"], planned["name"]) == (UNKNOWN, UNKNOWN, "demo")

    prior = {**config, "id": "demo", "uid": "u"}
    renamed = {**config, "name": "other"}
    replaced = ask(
        "PlanResourceChange",
        type_name="flintlock_namespace",
        prior_state=write_value(CODEC, prior),
        proposed_new_state=write_value(CODEC, {**prior, "name": "other"}),
        config=write_value(CODEC, renamed),
        prior_private=b'{"kept":1}',
    )
    assert [step.attribute_name for path in replaced.requires_replace for step in path.steps] == ["name"]
    assert replaced.planned_private == b'{"kept":1}'

    gone = ask(
        "PlanResourceChange",
        type_name="flintlock_namespace",
        prior_state=write_value(CODEC, prior),
        proposed_new_state=write_value(CODEC, None),
        config=write_value(CODEC, config),
    )
    assert read_value(CODEC, gone.planned_state) is None


def test_state_is_upgraded_from_any_older_shape_and_not_from_a_newer_one(ask: Ask) -> None:
    raw = json.dumps({"name": "demo", "id": "demo", "left_over": {"a": 1}}).encode()
    answer = ask("UpgradeResourceState", type_name="flintlock_namespace", version=0, raw_state={"json": raw})
    assert read_value(CODEC, answer.upgraded_state) == {**NOTHING, "name": "demo", "id": "demo"}
    newer = ask("UpgradeResourceState", type_name="flintlock_namespace", version=7, raw_state={"json": raw})
    assert "newer provider" in texts(newer.diagnostics)[0]
    broken = ask("UpgradeResourceState", type_name="flintlock_namespace", raw_state={"json": b"{"})
    assert "not JSON" in texts(broken.diagnostics)[0]


def test_state_moves_between_addresses_but_not_between_kinds(ask: Ask) -> None:
    raw = json.dumps({"name": "demo", "id": "demo", "uid": "u"}).encode()
    fields = {"target_type_name": "flintlock_namespace", "source_state": {"json": raw}}
    moved = ask("MoveResourceState", source_type_name="flintlock_namespace", **fields)
    assert read_value(CODEC, moved.target_state)["uid"] == "u"
    refused = ask("MoveResourceState", source_type_name="null_resource", **fields)
    assert "cannot take over null_resource" in texts(refused.diagnostics)[0]


@pytest.mark.parametrize(
    ("kind", "import_id", "words"),
    [
        ("flintlock_microvm", "web", "NAMESPACE/NAME"),
        ("flintlock_microvm", "/web", "NAMESPACE/NAME"),
        ("flintlock_microvm", "a/b/c", "NAMESPACE/NAME"),
        ("flintlock_namespace", "a/b", "is its name"),
        ("flintlock_host", "", "is its name"),
    ],
)
def test_a_bad_import_id_says_its_form(ask: Ask, kind: str, import_id: str, words: str) -> None:
    assert words in texts(ask("ImportResourceState", type_name=kind, id=import_id).diagnostics)[0]


def test_only_terraform_starts_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_PLUGIN_MAGIC_COOKIE", "wrong")
    assert not started_by_terraform()


def test_without_a_client_certificate_none_is_sent() -> None:
    server = PluginServer(FlintlockProvider, with_certificate=False)
    try:
        assert server.handshake_line().endswith("|grpc|")
    finally:
        server.remove_socket()


def test_a_stop_reaches_the_waiting_work() -> None:
    provider = FlintlockProvider()
    assert not provider.cancel.is_set()
    provider.stop()
    assert provider.cancel.is_set()


def test_the_handshake_needs_none_of_what_answers_the_calls() -> None:
    code = "import sys; import provider_shim.protocol.server, provider_shim.protocol.certificate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "grpc" in loaded
    late = ("provider_shim.framework", "provider_shim.resources", "provider_shim.protocol.messages", "requests", "yaml")
    assert not [name for name in loaded if name.startswith(late)]


def test_a_call_that_comes_before_the_provider_is_there_waits_for_it() -> None:
    server = PluginServer(FlintlockProvider, with_certificate=True)
    server.server.start()
    try:
        with channel_of(server.handshake_line()) as channel:
            ask = channel.unary_unary(
                "/tfplugin6.Provider/GetMetadata", response_deserializer=message("GetMetadata.Response").FromString
            )
            early = ask.future(b"", timeout=20)
            with pytest.raises(grpc.FutureTimeoutError):
                early.result(timeout=0.2)
            server.prepare()
            assert len(early.result().resources) == len(FlintlockProvider().resources)
    finally:
        server.stop()
        server.remove_socket()


def test_a_provider_that_cannot_be_made_ends_the_process_and_the_call() -> None:
    def broken() -> FlintlockProvider:
        raise ImportError("half of an installation")

    server = PluginServer(broken, with_certificate=True)
    server.server.start()
    try:
        with channel_of(server.handshake_line()) as channel:
            early = channel.unary_unary("/tfplugin6.Provider/GetMetadata").future(b"", timeout=20)
            with pytest.raises(ImportError):
                server.prepare()
            with pytest.raises(grpc.RpcError):
                early.result()
    finally:
        server.stop()
        server.remove_socket()
