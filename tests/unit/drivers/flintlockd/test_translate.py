"""Nothing that the wire has a field for is lost on it, and nothing else is claimed to be there."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.drivers.flintlockd.translate import LABEL_PREFIX, Identity, carries, from_wire, identity, to_wire
from controlplane.model.spec import (
    Initrd,
    Interface,
    InterfaceType,
    Kernel,
    MicroVMSpec,
    StaticAddress,
    Volume,
)
from controlplane.ports import VMDefinition
from controlplane.wire.flintlock.types import microvm_pb2 as types

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
optional_texts = st.none() | texts
volumes = st.builds(
    Volume,
    container_source=optional_texts,
    virtiofs_source=optional_texts,
    is_read_only=st.booleans(),
    mount_point=optional_texts,
    partition_id=optional_texts,
    size_in_mb=st.none() | st.integers(1, 2**24),
)
addresses = st.builds(StaticAddress, address=texts, gateway=optional_texts, nameservers=st.lists(texts, max_size=3))
interfaces = st.builds(
    Interface,
    type=st.sampled_from(InterfaceType),
    guest_mac=optional_texts,
    address=st.none() | addresses,
    bridge_name=optional_texts,
)
specs = st.builds(
    MicroVMSpec,
    vcpu=st.integers(1, 64),
    memory_in_mb=st.integers(64, 2**20),
    kernel=st.builds(
        Kernel,
        image=texts,
        filename=optional_texts,
        cmdline=st.dictionaries(names, texts, max_size=3),
        add_network_config=st.booleans(),
    ),
    initrd=st.none() | st.builds(Initrd, image=texts, filename=optional_texts),
    root_volume=st.none() | volumes,
    additional_volumes=st.dictionaries(names, volumes, max_size=3),
    interfaces=st.dictionaries(names, interfaces, max_size=3),
    metadata=st.dictionaries(names, texts, max_size=3),
)
definitions = st.builds(
    VMDefinition,
    cluster_id=names,
    uid=names,
    namespace=names,
    name=names,
    epoch=st.integers(0, 2**40),
    generation=st.integers(0, 2**40),
    labels=st.dictionaries(names, texts, max_size=3),
    spec=specs,
)


@given(definitions)
def test_a_definition_survives_the_wire(vm: VMDefinition) -> None:
    wire = types.MicroVMSpec.FromString(to_wire(vm).SerializeToString())
    assert from_wire(wire) == vm.spec
    assert identity(wire) == Identity(vm.cluster_id, vm.uid, vm.epoch, vm.generation)
    assert (wire.id, wire.namespace) == (vm.name, vm.namespace)
    ours = {key: value for key, value in wire.labels.items() if not key.startswith(LABEL_PREFIX)}
    assert ours == vm.labels
    assert carries(wire, vm.spec)


@given(definitions, specs)
def test_carries_means_that_nothing_would_have_to_restart(vm: VMDefinition, other: MicroVMSpec) -> None:
    assert carries(to_wire(vm), other) == (vm.spec == other)


def sample() -> VMDefinition:
    return VMDefinition(
        cluster_id="C",
        uid="U",
        namespace="demo",
        name="web",
        epoch=3,
        generation=4,
        labels={f"{LABEL_PREFIX}uid": "forged"},
        spec=MicroVMSpec(
            vcpu=1,
            memory_in_mb=1024,
            kernel=Kernel(image="k"),
            interfaces={"eth1": Interface()},
            metadata={"user-data": "hello"},
        ),
    )


def test_the_wire_form() -> None:
    wire = to_wire(sample(), provider="firecracker")
    assert dict(wire.labels) == {
        "flintlock-controlplane/cluster": "C",
        "flintlock-controlplane/uid": "U",
        "flintlock-controlplane/epoch": "3",
        "flintlock-controlplane/generation": "4",
    }
    assert dict(wire.metadata) == {"user-data": base64.b64encode(b"hello").decode()}
    assert wire.provider == "firecracker"
    assert not wire.HasField("uid")
    assert not wire.HasField("initrd")
    assert not wire.HasField("root_volume")
    assert wire.interfaces[0].type == types.NetworkInterface.TAP
    assert not wire.interfaces[0].HasField("guest_mac")
    assert not wire.interfaces[0].HasField("overrides")


def test_what_flintlock_adds_is_no_difference_and_what_was_removed_is() -> None:
    vm = sample()
    wire = to_wire(vm)
    wire.metadata["meta-data"] = base64.b64encode(b"instance_id: X\n").decode()
    added = wire.interfaces.add(device_id="eth0", type=types.NetworkInterface.TAP)
    added.address.address = "169.254.0.1/16"
    assert carries(wire, vm.spec)
    assert carries(wire, replace(vm.spec, provider="flintlockd"))
    assert not carries(wire, replace(vm.spec, interfaces={}))
    assert not carries(wire, replace(vm.spec, metadata={}))
    assert not carries(wire, replace(vm.spec, metadata={**vm.spec.metadata, "meta-data": "mine"}))
    assert not carries(wire, replace(vm.spec, interfaces={**vm.spec.interfaces, "eth0": Interface()}))


@pytest.mark.parametrize("value", ["***", "aGVsbG8", base64.b64encode(b"\xff").decode()])
def test_metadata_that_is_not_text_is_an_error_not_a_guess(value: str) -> None:
    wire = to_wire(sample())
    wire.metadata["user-data"] = value
    with pytest.raises(ValueError, match="user-data"):
        from_wire(wire)
    assert not carries(wire, sample().spec)


@pytest.mark.parametrize("key", ["cluster", "uid", "epoch", "generation"])
@pytest.mark.parametrize("value", [None, "", "-1", "1e3", "٣", "9" * 19])
def test_labels_that_we_do_not_write_are_nobodys(key: str, value: str | None) -> None:
    wire = to_wire(sample())
    del wire.labels[f"{LABEL_PREFIX}{key}"]
    if value is not None:
        wire.labels[f"{LABEL_PREFIX}{key}"] = value
    taken = bool(value) and key in {"cluster", "uid"}
    assert (identity(wire) is not None) == taken
