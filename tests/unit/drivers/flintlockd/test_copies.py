"""Of several copies the right one is kept, and none is deleted that might be it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.drivers.flintlockd.copies import choose, copies_of, highest_epoch, instances, surplus_of
from controlplane.drivers.flintlockd.journal import Phase, Record
from controlplane.drivers.flintlockd.translate import to_wire
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import Kernel, MicroVMSpec
from controlplane.ports import VMDefinition
from controlplane.wire.flintlock.types import microvm_pb2 as types

State = types.MicroVMStatus
VM = VMDefinition(
    cluster_id="C",
    uid="U",
    namespace="demo",
    name="web",
    epoch=2,
    generation=5,
    labels={},
    spec=MicroVMSpec(vcpu=1, memory_in_mb=1024, kernel=Kernel(image="k")),
)


def microvm(native_id: str, *, state: int = State.CREATED, epoch: int = 2, generation: int = 5, vcpu: int = 1):
    vm = replace(VM, epoch=epoch, generation=generation, spec=replace(VM.spec, vcpu=vcpu))
    wire = to_wire(vm)
    wire.uid = native_id
    return types.MicroVM(spec=wire, status=State(state=State.MicroVMState.ValueType(state)))


def kept(*microvms: types.MicroVM, record: Record | None = None, vm: VMDefinition = VM) -> tuple[str | None, list[str]]:
    copy, surplus = choose(copies_of(microvms, "U", "C"), vm, record)
    return copy and copy.native_id, [other.native_id for other in surplus]


def created(native_id: str, vm: VMDefinition = VM) -> Record:
    return Record(definition=vm, phase=Phase.CREATED, native_id=native_id)


def test_the_journals_copy_is_kept_else_the_oldest() -> None:
    assert kept() == (None, [])
    assert kept(microvm("b"), microvm("a")) == ("a", ["b"])
    assert kept(microvm("b"), microvm("a"), record=created("b")) == ("b", ["a"])
    assert kept(microvm("b"), microvm("a"), record=created("gone")) == ("a", ["b"])


@pytest.mark.parametrize("state", [State.FAILED, State.DELETING])
def test_what_will_not_run_is_not_kept(state: int) -> None:
    assert kept(microvm("a", state=state)) == (None, ["a"])
    assert kept(microvm("a", state=state), record=created("a")) == (None, ["a"])
    assert kept(microvm("a", state=State.PENDING)) == ("a", [])


def test_another_epoch_is_never_kept() -> None:
    assert kept(microvm("a", epoch=1)) == (None, ["a"])
    assert kept(microvm("a", epoch=3)) == (None, ["a"])


def test_a_later_generation_keeps_the_copy_only_without_a_restart() -> None:
    later = replace(VM, generation=6)
    bigger = replace(later, spec=replace(VM.spec, vcpu=2))
    for record in (None, created("a")):
        assert kept(microvm("a"), record=record, vm=later) == ("a", [])
        assert kept(microvm("a"), record=record, vm=bigger) == (None, ["a"])
    # The journal took generation 6 without a new copy: the label still says 5.
    assert kept(microvm("a"), record=created("a", later), vm=later) == ("a", [])
    assert kept(microvm("a"), record=created("a", later), vm=replace(bigger, generation=7)) == (None, ["a"])


def test_copies_are_ours_by_uid_and_cluster() -> None:
    stranger = types.MicroVM(spec=types.MicroVMSpec(id="web", namespace="demo", uid="s"))
    assert [copy.native_id for copy in copies_of([microvm("a"), stranger], "U", "C")] == ["a"]
    assert copies_of([microvm("a")], "U", "another") == []
    assert [copy.native_id for copy in copies_of([microvm("a")], "U")] == ["a"]


def test_the_highest_epoch_counts_what_may_be_there() -> None:
    copies = copies_of([microvm("a", epoch=4)], "U", "C")
    assert highest_epoch([], None) == 0
    assert highest_epoch(copies, created("x")) == 4
    assert highest_epoch([], Record(definition=replace(VM, epoch=9), phase=Phase.CREATING)) == 9
    assert highest_epoch([], Record(definition=replace(VM, epoch=9), phase=Phase.DESTROYED)) == 0


copies_strategy = st.lists(
    st.builds(
        microvm,
        st.sampled_from("abcdef"),
        state=st.sampled_from([State.PENDING, State.CREATED, State.FAILED, State.DELETING]),
        epoch=st.integers(1, 3),
        generation=st.integers(4, 6),
        vcpu=st.integers(1, 2),
    ),
    max_size=6,
    unique_by=lambda found: found.spec.uid,
)
records = st.builds(
    Record, definition=st.just(VM), phase=st.sampled_from(Phase), native_id=st.none() | st.sampled_from("abc")
)


@given(copies_strategy, records)
def test_the_sweeper_never_takes_the_last_copy_of_a_living_microvm(
    microvms: list[types.MicroVM], record: Record
) -> None:
    copies = copies_of(microvms, "U", "C")
    doomed = {copy.native_id for copy in surplus_of(copies, record)}
    if record.phase is Phase.DESTROYED:
        assert doomed == {copy.native_id for copy in copies}
    else:
        assert record.native_id not in doomed
        assert not any(copy.native_id in doomed and copy.identity.epoch > record.definition.epoch for copy in copies)
        if doomed:
            assert any(copy.native_id == record.native_id and copy.alive for copy in copies)


@given(copies_strategy, records)
def test_a_listing_shows_everything_and_one_copy_per_placement(microvms: list[types.MicroVM], record: Record) -> None:
    found = instances(microvms, {"U": record})
    assert sorted(instance.native_id for instance in found) == sorted(m.spec.uid for m in microvms)
    placements = [(instance.uid, instance.epoch) for instance in found if instance.uid is not None]
    assert len(placements) == len(set(placements))
    assert {epoch for _, epoch in placements} == {int(m.spec.labels["flintlock-controlplane/epoch"]) for m in microvms}


@pytest.mark.parametrize(
    ("state", "power", "cause"),
    [
        (State.PENDING, ObservedPower.STOPPED, "Flintlock is still creating it"),
        (State.CREATED, ObservedPower.RUNNING, None),
        (State.FAILED, ObservedPower.STOPPED, "Flintlock gave up creating it (FAILED)"),
        (State.DELETING, ObservedPower.STOPPED, "Flintlock is deleting it"),
        (17, ObservedPower.STOPPED, "Flintlock says 17"),
    ],
)
def test_states(state: int, power: ObservedPower, cause: str | None) -> None:
    (instance,) = instances([microvm("a", state=state)], {})
    assert (instance.power, instance.cause, instance.ready) == (power, cause, power is ObservedPower.RUNNING)
