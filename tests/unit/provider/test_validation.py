"""Bad input is refused while planning, each with a sentence and the attribute it is about."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from provider_shim.client import ApiError
from provider_shim.framework import engine
from provider_shim.framework.diagnostics import (
    AttributeName,
    BlockName,
    Diagnostic,
    MapKey,
    ProviderError,
    Report,
    Step,
    attribute,
    show_path,
)
from provider_shim.framework.duration import parse_duration_s, show_duration
from provider_shim.framework.resource import Resource
from provider_shim.framework.schema import Attribute, Nested
from provider_shim.framework.types import UNKNOWN
from provider_shim.protocol.convert import write_diagnostics
from provider_shim.resources.connection import Connection
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.problems import explain
from provider_shim.resources.provider import FlintlockProvider

PROVIDER = FlintlockProvider()
GOOD: dict[str, Any] = {
    "name": "web",
    "vcpu": 1,
    "memory_in_mb": 128,
    "kernel": {"image": "demo/kernel:6.1"},
}


def complete(attributes: dict[str, Attribute], given: dict[str, Any]) -> dict[str, Any]:
    """Every attribute present, as Terraform sends it."""

    def fill(each: Attribute, value: Any) -> Any:
        if not isinstance(each.type, Nested) or value is None or value is UNKNOWN:
            return value
        inner = dict(each.type.attributes)
        match each.type.mode:
            case "single":
                return complete(inner, value)
            case "map":
                return {key: one if one is UNKNOWN else complete(inner, one) for key, one in value.items()}
            case _:
                return [complete(inner, one) for one in value]

    return {name: fill(each, given.get(name)) for name, each in attributes.items()}


def refused(resource: Resource, given: dict[str, Any]) -> list[tuple[str, str]]:
    config = complete(dict(resource.schema.attributes), given)
    config.update({name: given.get(name) for name in resource.schema.blocks})
    report = Report()
    engine.validate(resource, config, report)
    return [(show_path(each.path), f"{each.summary}: {each.detail}") for each in report.items]


@pytest.mark.parametrize(
    ("kind", "given", "where", "words"),
    [
        ("microvm", {"name": "Web"}, "name", "lower-case"),
        ("microvm", {"name": "-web"}, "name", "no dash at either end"),
        ("microvm", {"name": ""}, "name", "is not a name"),
        ("microvm", {"name": "w" * 64}, "name", "at most 63"),
        ("microvm", {"namespace": "a/b"}, "namespace", "is not a name"),
        ("microvm", {"vcpu": 0}, "vcpu", "between 1 and 64"),
        ("microvm", {"vcpu": 65}, "vcpu", "between 1 and 64"),
        ("microvm", {"vcpu": 1.5}, "vcpu", "whole number"),
        ("microvm", {"memory_in_mb": 63}, "memory_in_mb", "between 64 and"),
        ("microvm", {"kernel": {"image": "UPPER"}}, "kernel.image", "image reference"),
        ("microvm", {"kernel": {"image": "a" * 256}}, "kernel.image", "image reference"),
        ("microvm", {"initrd": {"image": "a b"}}, "initrd.image", "image reference"),
        ("microvm", {"root_volume": {"kind": "tape"}}, "root_volume.kind", '"ephemeral", "local", "shared"'),
        ("microvm", {"root_volume": {"size_in_mb": 0}}, "root_volume.size_in_mb", "between 1 and"),
        (
            "microvm",
            {"additional_volumes": {"data": {"container_source": "?"}}},
            'additional_volumes["data"].container_source',
            "image reference",
        ),
        ("microvm", {"additional_volumes": {"a b": {}}}, 'additional_volumes["a b"]', "is not an id"),
        ("microvm", {"additional_volumes": {str(i): {} for i in range(17)}}, "additional_volumes", "at most 16"),
        (
            "microvm",
            {"root_volume": {"container_source": "a", "virtiofs_source": "/b"}},
            "root_volume",
            "not both",
        ),
        ("microvm", {"interfaces": {"eth1": {"type": "veth"}}}, 'interfaces["eth1"].type', '"tap", "macvtap"'),
        ("microvm", {"interfaces": {"eth1": {"guest_mac": "02:00"}}}, 'interfaces["eth1"].guest_mac', "MAC address"),
        (
            "microvm",
            {"interfaces": {"eth1": {"bridge_name": "a-name-that-is-too-long"}}},
            'interfaces["eth1"].bridge_name',
            "at most 15",
        ),
        (
            "microvm",
            {"interfaces": {"eth1": {"address": {"address": "10.0.0.2"}}}},
            'interfaces["eth1"].address.address',
            "prefix length",
        ),
        (
            "microvm",
            {"interfaces": {"eth1": {"address": {"address": "10.0.0.2/255.255.255.0"}}}},
            'interfaces["eth1"].address.address',
            "prefix length",
        ),
        (
            "microvm",
            {"interfaces": {"eth1": {"address": {"address": "10.0.0.300/24"}}}},
            'interfaces["eth1"].address.address',
            "10.0.0.300/24",
        ),
        (
            "microvm",
            {"interfaces": {"e": {"address": {"address": "10.0.0.2/24", "nameservers": ["1.1.1.1", "dns"]}}}},
            'interfaces["e"].address.nameservers[1]',
            "dns",
        ),
        (
            "microvm",
            {"interfaces": {"e": {"address": {"address": "10.0.0.2/24", "gateway": "gw"}}}},
            'interfaces["e"].address.gateway',
            "gw",
        ),
        ("microvm", {"metadata": {"user data": "x"}}, 'metadata["user data"]', "is not an id"),
        ("microvm", {"labels": {"bad key": "x"}}, 'labels["bad key"]', "is not a label key"),
        ("microvm", {"driver": "QEMU"}, "driver", "is not a driver"),
        ("microvm", {"power_state": "off"}, "power_state", '"running", "stopped", "paused"'),
        ("microvm", {"drift_policy": "ignore"}, "drift_policy", '"repair", "report"'),
        ("microvm", {"wait_for": "booted"}, "wait_for", '"running", "ready", "none"'),
        ("microvm", {"placement": {"host": "H1"}}, "placement.host", "is not a name"),
        ("microvm", {"placement": {"spread": {"max_per": 0}}}, "placement.spread.max_per", "between 1 and"),
        ("microvm", {"recovery": {"on_host_failure": "panic"}}, "recovery.on_host_failure", "restart_elsewhere"),
        ("microvm", {"recovery": {"on_detach": "panic"}}, "recovery.on_detach", '"pause", "stop", "shutdown", "keep"'),
        (
            "microvm",
            {"recovery": {"on_host_failure": "restart_elsewhere", "on_detach": "keep"}},
            "recovery.on_detach",
            "might run twice",
        ),
        ("microvm", {"timeouts": {"create": "soon"}}, "timeouts.create", "90s, 5m or 1h30m"),
        ("microvm", {"timeouts": {"delete": "0s"}}, "timeouts.delete", "between"),
        ("namespace", {"name": "demo", "max_vcpu": -1}, "max_vcpu", "between 0 and"),
        ("namespace", {"name": "demo_1"}, "name", "is not a name"),
        ("host", {"name": "h1", "labels": {"": "x"}}, 'labels[""]', "is not a label key"),
        ("placement_policy", {"name": "p", "spread": {"by": "no spaces"}}, "spread.by", "is not a label key"),
    ],
)
def test_each_bad_value_names_its_attribute(kind: str, given: dict[str, Any], where: str, words: str) -> None:
    base = GOOD if kind == "microvm" else {}
    found = refused(PROVIDER.resources[f"flintlock_{kind}"], {**base, **given})
    assert [path for path, _ in found] == [where]
    assert words in found[0][1]


def test_good_and_unknown_values_pass() -> None:
    microvm = PROVIDER.resources["flintlock_microvm"]
    assert refused(microvm, GOOD) == []
    for recovery in (
        {"on_host_failure": "restart_elsewhere", "on_detach": "stop", "allow_data_loss": True},
        {"on_host_failure": UNKNOWN, "on_detach": "keep"},
        {"on_host_failure": "restart_elsewhere", "on_detach": UNKNOWN},
        {"on_detach": "keep"},
        UNKNOWN,
    ):
        assert refused(microvm, {**GOOD, "recovery": recovery}) == []
    unknown = {"vcpu": UNKNOWN, "kernel": UNKNOWN, "interfaces": {"e": UNKNOWN}, "timeouts": UNKNOWN}
    assert refused(microvm, {**GOOD, **unknown, "root_volume": UNKNOWN, "additional_volumes": {"a": UNKNOWN}}) == []


@pytest.mark.parametrize(
    ("config", "where", "words"),
    [
        ({"endpoints": ["http://a:1"]}, "endpoints", "is not an https:// address"),
        ({"endpoints": ["https://a:1/api"]}, "endpoints", "must end after the port"),
        ({"endpoints": []}, "endpoints", "FLINTLOCK_ENDPOINTS"),
        ({"token": "a\nb"}, "token", "newline"),
        ({"token": None}, "token", "FLINTLOCK_TOKEN"),
        ({"token": None, "token_file": "/nowhere/token"}, "token_file", "/nowhere/token"),
        ({"token": None, "token_file": "/dev/null"}, "token_file", "no token has"),
        ({"token": None, "oidc_token_file": "/dev/zero"}, "oidc_token_file", "no token has"),
        ({"token": None, "oidc_token": "a b"}, "oidc_token", "no token has"),
        ({"oidc_token": "a.b.c"}, "oidc_token", "token says already who this is"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file", "/nowhere/ca.pem"),
        ({"ca_file": __file__}, "ca_file", "no PEM certificate"),
        ({"client_key": __file__}, "client_certificate", "needs its key"),
        ({"client_certificate": __file__, "client_key": __file__}, "client_certificate", "not a PEM certificate"),
    ],
)
def test_a_bad_provider_configuration_names_its_argument(config: dict[str, Any], where: str, words: str) -> None:
    report = Report()
    good = {"endpoints": ["https://127.0.0.1:1"], "token": "t"}
    Connection(threading.Event(), {}).configure({**good, **config}, report)
    assert [show_path(each.path) for each in report.items] == [where]
    assert words in f"{report.items[0].summary} {report.items[0].detail}"


def test_terraform_is_told_as_much_of_a_place_as_it_can_find() -> None:
    places = {
        "vcpu": attribute("vcpu"),
        "kernel": attribute("kernel", "image"),
        'interfaces["eth1"]': (AttributeName("interfaces"), MapKey("eth1"), *attribute("address", "gateway")),
        "timeouts.create": (BlockName("timeouts"), AttributeName("create")),
    }
    for found, path in places.items():
        (written,) = write_diagnostics([Diagnostic("error", "wrong", "", path)])
        assert show_path(tuple(map(read_step, written.attribute.steps))) == found


def read_step(step: Any) -> Step:
    if step.WhichOneof("selector") == "attribute_name":
        return AttributeName(step.attribute_name)
    return MapKey(step.element_key_string)


@pytest.mark.parametrize(
    ("status", "problem", "path", "told"),
    [
        (
            422,
            {"code": "invalid", "errors": [{"pointer": "/spec/kernel/cmdline/a", "message": "must hold no space"}]},
            'kernel.cmdline["a"]',
            'kernel.cmdline["a"]: must hold no space. [invalid]',
        ),
        (
            409,
            {"code": "in_use", "hint": "Wait.", "errors": [{"pointer": "/name", "message": "it is in use"}]},
            "name",
            "it is in use. Wait. [in_use]",
        ),
        (
            422,
            {"code": "invalid", "errors": [{"pointer": "/header/x", "message": "is odd"}]},
            "",
            "/header/x: is odd. [invalid]",
        ),
        (
            401,
            {
                "code": "unauthenticated",
                "title": "No",
                "detail": "unknown token",
                "hint": "Send a header.",
            },
            "",
            "No: unknown token. Check the provider's token (or FLINTLOCK_TOKEN). [unauthenticated]",
        ),
    ],
)
def test_a_refusal_is_told_in_sentences(status: int, problem: dict[str, Any], path: str, told: str) -> None:
    (found,) = explain(ApiError(status, problem), "create it", MicroVMResource.translation)
    assert (found.summary, found.detail, show_path(found.path)) == ("Cannot create it", told, path)


def test_the_environment_stands_in_for_what_is_not_written() -> None:
    report = Report()
    environment = {
        "FLINTLOCK_ENDPOINTS": "https://a:1, https://b:2",
        "FLINTLOCK_TOKEN": "t",
        "FLINTLOCK_NAMESPACE": "n",
    }
    connection = Connection(threading.Event(), environment)
    connection.configure({"token": "written"}, report)
    assert report.items == []
    assert connection.namespace == "n"
    assert connection.client()


@pytest.mark.parametrize(
    ("config", "environment", "sent"),
    [
        ({}, {"FLINTLOCK_TOKEN": "a", "FLINTLOCK_OIDC_TOKEN": "b"}, "a"),
        ({}, {"FLINTLOCK_TOKEN_FILE": "FILE", "FLINTLOCK_OIDC_TOKEN": "b"}, "first"),
        ({}, {"FLINTLOCK_OIDC_TOKEN_FILE": "FILE"}, "first"),
        ({"oidc_token": "c"}, {"FLINTLOCK_TOKEN": "a"}, "c"),
        ({"oidc_token_file": "FILE"}, {"FLINTLOCK_TOKEN": "a", "FLINTLOCK_OIDC_TOKEN": "b"}, "first"),
    ],
)
def test_one_credential_is_sent_and_what_is_written_goes_first(
    config: dict[str, str], environment: dict[str, str], sent: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")

    def filled(values: dict[str, str]) -> dict[str, str]:
        return {name: str(file) if value == "FILE" else value for name, value in values.items()}

    report = Report()
    connection = Connection(threading.Event(), filled(environment))
    connection.configure({"endpoints": ["https://a:1"], **filled(config)}, report)
    assert report.items == []
    client = connection.client()
    assert client._token() == sent
    # A file is followed, and what was good before is sent while there is none.
    file.write_text("second\n")
    assert client._token() == ("second" if sent == "first" else sent)
    file.unlink()
    assert client._token() == sent


def test_an_unknown_configuration_is_no_error_until_it_is_needed() -> None:
    report = Report()
    connection = Connection(threading.Event(), {})
    connection.configure({"endpoints": ["https://a:1", UNKNOWN], "namespace": UNKNOWN, "token": None}, report)
    assert report.items == []
    assert connection.deferred
    assert connection.namespace is UNKNOWN
    with pytest.raises(ProviderError, match="not configured yet"):
        connection.client()


def test_durations() -> None:
    assert [parse_duration_s(text) for text in ("90s", "5m", "1h30m", "1.5s", "200ms")] == [90, 300, 5400, 1.5, 0.2]
    assert [show_duration(seconds) for seconds in (0.2, 90, 300, 5400)] == ["200ms", "1m30s", "5m", "1h30m"]
    for text in ("", "5", "m", "5 m", "-5m", "1d", "0s", "999h"):
        with pytest.raises(ValueError, match="is not"):
            parse_duration_s(text)
