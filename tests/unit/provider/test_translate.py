"""What a user writes, as the API stores it, read back: the same intent comes back as it was written."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_shim.framework.diagnostics import Report, show_path
from provider_shim.framework.plan import propose
from provider_shim.framework.schema import Attribute, Nested
from provider_shim.framework.types import UNKNOWN
from provider_shim.resources.microvm import drift
from provider_shim.resources.microvm.attributes import INTENT
from provider_shim.resources.microvm.resource import MicroVMResource
from pydantic import TypeAdapter

from controlplane.model.spec import MICROVM_FIELD_EFFECTS, MicroVMSpec

TRANSLATION = MicroVMResource.translation
SCHEMA = MicroVMResource.schema
SPEC = TypeAdapter(MicroVMSpec)

LABELS = st.dictionaries(st.sampled_from(["app", "rack"]), st.sampled_from(["a", "b"]), max_size=2)
VOLUME = st.fixed_dictionaries(
    {"container_source": st.just("demo/root:1")},
    optional={
        "kind": st.sampled_from(["ephemeral", "local"]),
        "size_in_mb": st.integers(1, 9),
        "is_read_only": st.booleans(),
    },
)
SPREAD = st.fixed_dictionaries(
    {}, optional={"by": st.just("rack"), "max_per": st.integers(1, 3), "match_labels": LABELS}
)
PLACEMENT = st.fixed_dictionaries(
    {}, optional={"host": st.just("h1"), "required_host_labels": LABELS, "spread": SPREAD}
)
ADDRESS = st.fixed_dictionaries(
    {"address": st.just("10.0.0.2/24")}, optional={"nameservers": st.lists(st.just("1.1.1.1"), max_size=2)}
)
INTERFACE = st.fixed_dictionaries(
    {}, optional={"type": st.just("macvtap"), "address": ADDRESS, "bridge_name": st.just("b0")}
)
WRITTEN = st.fixed_dictionaries(
    {
        "vcpu": st.integers(1, 4),
        "memory_in_mb": st.integers(64, 128),
        "kernel": st.fixed_dictionaries({"image": st.just("demo/kernel:6.1")}, optional={"cmdline": LABELS}),
    },
    optional={
        "labels": LABELS,
        "initrd": st.just({"image": "demo/initrd:1"}),
        "root_volume": VOLUME,
        "additional_volumes": st.dictionaries(st.sampled_from(["data", "logs"]), VOLUME),
        "interfaces": st.dictionaries(st.sampled_from(["eth1", "eth2"]), INTERFACE),
        "metadata": LABELS,
        "driver": st.just("qemu"),
        "power_state": st.sampled_from(["running", "stopped"]),
        "placement": PLACEMENT,
        "recovery": st.fixed_dictionaries(
            {},
            optional={
                "on_host_failure": st.just("restart_elsewhere"),
                "on_detach": st.sampled_from(["pause", "stop", "shutdown"]),
                "allow_data_loss": st.booleans(),
            },
        ),
    },
)


def planned(written: dict[str, Any]) -> dict[str, Any]:
    """The planned state of a configuration, as Terraform hands it to apply."""

    def complete(attributes: dict[str, Attribute], given: dict[str, Any]) -> dict[str, Any]:
        return {name: fill(each, given.get(name)) for name, each in attributes.items()}

    def fill(each: Attribute, value: Any) -> Any:
        if not isinstance(each.type, Nested) or value is None:
            return value
        inner = dict(each.type.attributes)
        if each.type.mode == "single":
            return complete(inner, value)
        return {key: complete(inner, one) for key, one in value.items()}

    return propose(SCHEMA, None, {**complete(dict(SCHEMA.attributes), written), "timeouts": None})


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """What the control plane keeps of it: its own model fills in its own defaults."""
    body = TRANSLATION.body(state)
    spec = asdict(SPEC.validate_python(body["spec"]))
    return {"labels": body.get("labels", {}), "annotations": {}, "spec": spec}


def intent(state: dict[str, Any]) -> dict[str, Any]:
    return {name: state[name] for name in INTENT}


@given(WRITTEN)
def test_a_read_after_an_apply_changes_nothing(written: dict[str, Any]) -> None:
    state = planned(written)
    assert TRANSLATION.merge(state, stored(state)) == intent(state)


@given(WRITTEN)
def test_an_imported_intent_is_the_same_intent(written: dict[str, Any]) -> None:
    kept = stored(planned(written))
    imported = TRANSLATION.merge({}, kept)
    assert UNKNOWN not in imported.values()
    assert stored(imported) == kept
    assert TRANSLATION.merge(imported, kept) == imported


@given(WRITTEN, WRITTEN)
def test_a_read_shows_what_is_stored(before: dict[str, Any], after: dict[str, Any]) -> None:
    kept = stored(planned(after))
    assert stored(TRANSLATION.merge(planned(before), kept)) == kept


def test_every_field_of_the_control_planes_model_can_be_written_and_has_its_effect() -> None:
    names = {TRANSLATION.renames.get(name, name): each for name, each in INTENT.items()}
    for name, effect in MICROVM_FIELD_EFFECTS.items():
        assert names[name].on_change == effect.value
    assert set(names) == {*MICROVM_FIELD_EFFECTS, "labels", "annotations"}


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("/spec/vcpu", "vcpu"),
        ("/spec/provider", "driver"),
        ("/spec/kernel/image", "kernel.image"),
        ("/spec/kernel/cmdline/console", 'kernel.cmdline["console"]'),
        ("/spec/interfaces/eth1/address/nameservers/1", 'interfaces["eth1"].address.nameservers[1]'),
        ("/spec/additional_volumes/a~1b/kind", 'additional_volumes["a/b"].kind'),
        ("/spec/kernel/no_such/field", "kernel"),
        ("/labels/a~0b", 'labels["a~b"]'),
        ("/namespace", "namespace"),
        ("/spec", ""),
        ("/spec/from_the_future", ""),
        ("/header/if-match", ""),
        ("", ""),
    ],
)
def test_pointers_lead_to_attributes(pointer: str, path: str) -> None:
    assert show_path(TRANSLATION.path(pointer)) == path


def drifted(pointer: str, observed: Any, kind: str = "drifted") -> dict[str, Any]:
    state = planned({"vcpu": 1, "memory_in_mb": 64, "kernel": {"image": "k"}, "interfaces": {"eth1": {}}})
    entry = {"pointer": pointer, "desired": None, "observed": observed, "since": None, "cause": "someone"}
    return {**stored(state), "status": {"drift": {"class": kind, "fields": [entry]}}}


@pytest.mark.parametrize(
    ("pointer", "observed", "name", "shown"),
    [
        ("/spec/power_state", "absent", "power_state", "stopped"),
        ("/spec/power_state", None, "power_state", "stopped"),
        ("/spec/power_state", "paused", "power_state", "paused"),
        ("/spec/vcpu", 2, "vcpu", 2),
        ("/spec/interfaces/eth1", None, "interfaces", None),
        ("/spec/no/such/field", 1, "vcpu", 1),
    ],
)
def test_drift_is_put_where_it_was_observed(pointer: str, observed: Any, name: str, shown: Any) -> None:
    found = drifted(pointer, observed)
    before = str(found)
    seen = TRANSLATION.merge({}, drift.with_observed(found, drift.drifted_fields(found)))
    assert seen[name] == shown
    assert str(found) == before


@pytest.mark.parametrize("kind", ["in_sync", "progressing", "unmanaged", "unreachable"])
def test_only_the_class_drifted_is_drift(kind: str) -> None:
    assert drift.drifted_fields(drifted("/spec/power_state", "absent", kind)) == []


def test_a_drift_warning_says_cause_and_attribute() -> None:
    report = Report()
    found = drifted("/spec/vcpu", 2)
    drift.warn(report, "demo/web", drift.drifted_fields(found), TRANSLATION)
    assert show_path(report.items[0].path) == "vcpu"
    assert "vcpu is 2 instead of nothing: someone." in report.items[0].detail
