"""What an update would change: applying what `diff` says to the old spec gives the new one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.builders import KERNEL, microvm_spec

from controlplane.decide.changes import diff
from controlplane.model.spec import (
    Effect,
    Initrd,
    Interface,
    Kernel,
    MicroVMSpec,
    Placement,
    PowerState,
    Spread,
    StaticAddress,
    Volume,
)

texts = st.sampled_from(["", "a", "b/c", "d~e", "~1", "x y"])
keys = st.sampled_from(["a", "b/c", "d~e", "~1", "eth1"])
labels = st.dictionaries(keys, texts, max_size=3)
volumes = st.builds(Volume, container_source=st.none() | texts, size_in_mb=st.none() | st.integers(1, 3))
addresses = st.builds(StaticAddress, address=texts, gateway=st.none() | texts, nameservers=st.lists(texts, max_size=2))
interfaces = st.builds(Interface, guest_mac=st.none() | texts, address=st.none() | addresses)
spreads = st.builds(Spread, max_per=st.integers(1, 2), match_labels=labels)
specs = st.builds(
    MicroVMSpec,
    vcpu=st.integers(1, 3),
    memory_in_mb=st.integers(1, 3),
    kernel=st.builds(Kernel, image=texts, filename=st.none() | texts, cmdline=labels),
    initrd=st.none() | st.builds(Initrd, image=texts, filename=st.none() | texts),
    root_volume=st.none() | volumes,
    additional_volumes=st.dictionaries(keys, volumes, max_size=2),
    interfaces=st.dictionaries(keys, interfaces, max_size=2),
    metadata=labels,
    power_state=st.sampled_from(PowerState),
    placement=st.builds(Placement, host=st.none() | texts, required_host_labels=labels, spread=st.none() | spreads),
)


def leaves(value: Any, path: tuple[str, ...] = ("spec",)) -> dict[tuple[str, ...], Any]:
    """Every leaf that is set; what is None or empty says nothing that its absence does not say."""
    if isinstance(value, dict):
        return {at: leaf for key in value for at, leaf in leaves(value[key], (*path, key)).items()}
    return {} if value is None else {path: value}


def unescape(pointer: str) -> tuple[str, ...]:
    first, *parts = pointer.split("/")
    assert first == ""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


@given(specs, specs)
def test_applying_the_changes_gives_the_new_spec(old: MicroVMSpec, new: MicroVMSpec) -> None:
    patched = leaves(asdict(old))
    for change in diff(old, new):
        path = unescape(change.pointer)
        assert patched.get(path) == change.old
        assert change.old != change.new
        if change.new is None:
            del patched[path]
        else:
            patched[path] = change.new
    assert patched == leaves(asdict(new))


@given(specs)
def test_nothing_differs_from_itself_and_everything_from_nothing(spec: MicroVMSpec) -> None:
    assert diff(spec, spec) == ()
    against_nothing = diff(None, spec)
    assert {unescape(change.pointer): change.new for change in against_nothing} == leaves(asdict(spec))
    assert all(change.old is None for change in against_nothing)


@given(specs, specs)
def test_changes_come_in_order_and_once(old: MicroVMSpec, new: MicroVMSpec) -> None:
    pointers = [change.pointer for change in diff(old, new)]
    assert pointers == sorted(set(pointers))


def test_pointers_escape_and_name_the_effect_of_their_field() -> None:
    old = microvm_spec(kernel=Kernel(image="k:1", cmdline={"a/b": "1", "c~d": "1"}))
    new = microvm_spec(kernel=Kernel(image="k:1", cmdline={"a/b": "2"}), vcpu=2, power_state=PowerState.STOPPED)
    found = [(each.pointer, each.old, each.new, each.effect) for each in diff(old, new)]
    assert found == [
        ("/spec/kernel/cmdline/a~1b", "1", "2", Effect.RESTART),
        ("/spec/kernel/cmdline/c~0d", "1", None, Effect.RESTART),
        ("/spec/power_state", "running", "stopped", Effect.LIVE),
        ("/spec/vcpu", 1, 2, Effect.RESTART),
    ]


def test_what_is_taken_away_is_named_leaf_by_leaf() -> None:
    with_initrd = microvm_spec(initrd=Initrd(image="demo/initrd:1"))
    assert [(each.pointer, each.new) for each in diff(with_initrd, microvm_spec())] == [("/spec/initrd/image", None)]
    volume = microvm_spec(root_volume=Volume(container_source="demo/root:1"))
    assert {each.effect for each in diff(microvm_spec(), volume)} == {Effect.REPLACE}
    assert microvm_spec().kernel == KERNEL
