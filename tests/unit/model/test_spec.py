"""What the edge accepts as a spec, and which field every refusal names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import msgspec
import pytest
from pydantic import TypeAdapter, ValidationError
from support.builders import microvm_spec

from controlplane.model.spec import (
    MICROVM_FIELD_EFFECTS,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    PlacementPolicySpec,
)
from controlplane.model.types import PATTERN_WORDS, Labels, Name

MINIMAL: dict[str, Any] = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}
FULL: dict[str, Any] = {
    **MINIMAL,
    "kernel": {
        "image": "ghcr.io/demo/kernel:6.1@sha256:" + "a" * 64,
        "filename": "boot/vmlinux",
        "cmdline": {"console": "ttyS0", "quiet": ""},
        "add_network_config": True,
    },
    "initrd": {"image": "demo/initrd:1", "filename": "initrd.img"},
    "root_volume": {"kind": "ephemeral", "container_source": "demo/root:1", "size_in_mb": 512},
    "additional_volumes": {"data": {"kind": "shared", "virtiofs_source": "/srv/data", "mount_point": "/data"}},
    "interfaces": {
        "eth1": {
            "type": "tap",
            "guest_mac": "02:00:00:00:00:01",
            "address": {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "nameservers": ["10.0.0.1", "2001:db8::1"]},
            "bridge_name": "br0",
        }
    },
    "metadata": {"user-data": "#cloud-config\n"},
    "provider": "qemu",
    "power_state": "stopped",
    "drift_policy": "report",
    "placement": {
        "host": "h1",
        "policy": "spread",
        "required_host_labels": {"example.com/zone": "a"},
        "spread": {"by": "zone", "max_per": 2, "match_labels": {"app": "web"}},
    },
    "recovery": {"on_host_failure": "restart_elsewhere", "on_detach": "shutdown", "allow_data_loss": True},
}
microvm = TypeAdapter(MicroVMSpec)


@pytest.mark.parametrize("body", [MINIMAL, FULL])
def test_what_is_accepted_comes_back_unchanged(body: dict[str, Any]) -> None:
    spec = microvm.validate_python(body)
    dumped = microvm.dump_python(spec, mode="json")
    assert microvm.validate_python(dumped) == spec
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=MicroVMSpec) == spec
    for key, value in body.items():
        if not isinstance(value, dict):
            assert dumped[key] == value


def test_the_minimum_is_what_the_builder_builds() -> None:
    assert microvm.validate_python(MINIMAL) == microvm_spec()


def test_every_field_has_an_effect() -> None:
    assert list(MICROVM_FIELD_EFFECTS) == list(asdict(microvm_spec()))


REFUSED: list[tuple[dict[str, Any], tuple[str | int, ...]]] = [
    ({"vcpu": 0}, ("vcpu",)),
    ({"vcpu": 65}, ("vcpu",)),
    ({"vcpu": None}, ("vcpu",)),
    ({"vcpu": 1.5}, ("vcpu",)),
    ({"vcpu": "many"}, ("vcpu",)),
    ({"memory_in_mb": 63}, ("memory_in_mb",)),
    ({"memory_in_mb": 1024 * 1024 + 1}, ("memory_in_mb",)),
    ({"kernel": {}}, ("kernel", "image")),
    ({"kernel": {"image": ""}}, ("kernel", "image")),
    ({"kernel": {"image": "Upper/Case"}}, ("kernel", "image")),
    ({"kernel": {"image": "a b"}}, ("kernel", "image")),
    ({"kernel": {"image": "a" * 256}}, ("kernel", "image")),
    ({"kernel": {"image": "k:1\n"}}, ("kernel", "image")),
    ({"kernel": {"image": "k:1", "filename": ""}}, ("kernel", "filename")),
    ({"kernel": {"image": "k:1", "filename": "a\x00"}}, ("kernel", "filename")),
    ({"kernel": {"image": "k:1", "cmdline": {"init": "/bin/sh rw"}}}, ("kernel", "cmdline", "init")),
    ({"kernel": {"image": "k:1", "cmdline": {"a b": "1"}}}, ("kernel", "cmdline", "a b", "[key]")),
    ({"kernel": {"image": "k:1", "surprise": 1}}, ("kernel", "surprise")),
    ({"initrd": {"image": "-"}}, ("initrd", "image")),
    ({"root_volume": {"size_in_mb": 0}}, ("root_volume", "size_in_mb")),
    ({"root_volume": {"kind": "eternal"}}, ("root_volume", "kind")),
    ({"additional_volumes": {"a/b": {}}}, ("additional_volumes", "a/b", "[key]")),
    ({"additional_volumes": {f"v{number}": {} for number in range(17)}}, ("additional_volumes",)),
    ({"interfaces": {"eth0": {"type": "veth"}}}, ("interfaces", "eth0", "type")),
    ({"interfaces": {"eth0": {"guest_mac": "02:00"}}}, ("interfaces", "eth0", "guest_mac")),
    ({"interfaces": {"eth0": {"bridge_name": "a" * 16}}}, ("interfaces", "eth0", "bridge_name")),
    ({"interfaces": {"e": {"address": {"address": "10.0.0.2"}}}}, ("interfaces", "e", "address", "address")),
    ({"interfaces": {"e": {"address": {"address": "10.0.0.2/33"}}}}, ("interfaces", "e", "address", "address")),
    (
        {"interfaces": {"e": {"address": {"address": "10.0.0.2/255.255.255.0"}}}},
        ("interfaces", "e", "address", "address"),
    ),
    (
        {"interfaces": {"e": {"address": {"address": "10.0.0.2/24", "gateway": "gw"}}}},
        ("interfaces", "e", "address", "gateway"),
    ),
    (
        {"interfaces": {"e": {"address": {"address": "10.0.0.2/24", "nameservers": ["x"]}}}},
        ("interfaces", "e", "address", "nameservers", 0),
    ),
    ({"metadata": {"": "x"}}, ("metadata", "", "[key]")),
    ({"metadata": {"user-data": "x" * (64 * 1024 + 1)}}, ("metadata", "user-data")),
    ({"provider": "Qemu"}, ("provider",)),
    ({"power_state": "absent"}, ("power_state",)),
    ({"drift_policy": "ignore"}, ("drift_policy",)),
    ({"placement": {"host": "H1"}}, ("placement", "host")),
    ({"placement": {"policy": "a" * 64}}, ("placement", "policy")),
    ({"placement": {"required_host_labels": {"a": "-"}}}, ("placement", "required_host_labels", "a")),
    ({"placement": {"spread": {"max_per": 0}}}, ("placement", "spread", "max_per")),
    ({"recovery": {"on_host_failure": "pray"}}, ("recovery", "on_host_failure")),
    ({"recovery": {"on_detach": "pray"}}, ("recovery", "on_detach")),
    ({"recovery": {"allow_data_loss": "perhaps"}}, ("recovery", "allow_data_loss")),
    ({"cpus": 1}, ("cpus",)),
]


@pytest.mark.parametrize(("change", "place"), REFUSED, ids=[".".join(map(str, place)) for _, place in REFUSED])
def test_a_refusal_names_the_field(change: dict[str, Any], place: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        microvm.validate_python({**MINIMAL, **change})
    assert [error["loc"] for error in refused.value.errors()] == [place]


@pytest.mark.parametrize(
    ("spec", "body", "place"),
    [
        (HostSpec, {"schedulable": "perhaps"}, ("schedulable",)),
        (NamespaceSpec, {"max_microvms": -1}, ("max_microvms",)),
        (NamespaceSpec, {"max_vcpu": 10**9}, ("max_vcpu",)),
        (PlacementPolicySpec, {"spread": {"by": "a b"}}, ("spread", "by")),
        (PlacementPolicySpec, {"preferred_host_labels": {"a/b/c": "1"}}, ("preferred_host_labels", "a/b/c", "[key]")),
    ],
)
def test_other_specs_name_the_field_too(spec: type[Any], body: dict[str, Any], place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(spec).validate_python(body)
    assert [error["loc"] for error in refused.value.errors()] == [place]


def patterns(schema: Any) -> Iterator[str]:
    """Of strings, and of the keys of maps."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        yield from schema.get("patternProperties", {})
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from patterns(inner)


@pytest.mark.parametrize("spec", [MicroVMSpec, PlacementPolicySpec, Labels, Name])
def test_every_pattern_is_told_in_words(spec: Any) -> None:
    found = set(patterns(TypeAdapter(spec).json_schema()))
    assert found
    assert found <= set(PATTERN_WORDS)
