"""The plan over arbitrary worlds: what it may never do, that it repeats itself, and that carrying it out ends."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.agent_values import CLUSTER, assignment, instance, record
from support.builders import microvm_spec

from controlplane.agent.assignments import Assignment, Assignments
from controlplane.agent.journal import Record, RecordPhase
from controlplane.agent.plan import Found, Listing, Plan, differences, plan
from controlplane.agent.steps import Acknowledge, Create, Destroy, Forget, Restart, SetPower, ShutDown, Step, Update
from controlplane.model.resources import Amount, ObservedPower
from controlplane.model.spec import DriftPolicy, MicroVMSpec, OnDetach, PowerState, Recovery, detach_action
from controlplane.ports import LEASE_ENDED, Instance

DRIVERS = ("qemu", "simulated")
UIDS = ("a", "b", "c")


@dataclass
class World:
    """A host of which everything is known: what is wanted, what was written down, what is there."""

    wanted: dict[str, Assignment] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    there: dict[tuple[str, str | None, str | None], Instance] = field(default_factory=dict)
    """By driver, cluster and uid: a driver holds one copy of a uid."""
    blind: dict[str, str] = field(default_factory=dict)
    may_run: bool = True
    shut_down: bool = False
    capacity: Amount = field(default_factory=lambda: Amount(vcpu=64, memory_in_mb=65536))
    acting: frozenset[str] = frozenset()

    def add(self, found: Instance, driver: str = "simulated") -> World:
        self.there[driver, found.cluster_id, found.uid] = found
        return self

    @property
    def listing(self) -> Listing:
        found = [Found(driver, each) for (driver, _, _), each in self.there.items() if driver not in self.blind]
        return Listing(found=found, blind=self.blind)

    def plan(self) -> Plan:
        wanted = Assignments(cluster_id=CLUSTER, revision=1, by_uid=self.wanted)
        return plan(
            wanted,
            self.records,
            self.listing,
            drivers=DRIVERS,
            default_driver="simulated",
            capacity=self.capacity,
            acting=self.acting,
            may_run=lambda _: self.may_run,
            shut_down=lambda _: self.shut_down,
        )

    def carry_out(self, step: Step, *, stop_after: int = 9) -> None:
        """The step's effects in order, as the executor and a driver have them; a crash leaves out the later ones."""
        for act in self._acts(step)[:stop_after]:
            act()

    def _acts(self, step: Step) -> list:
        match step:
            case Create() | Update():
                acts = [lambda: self._put(step)]
                before = [lambda: self.records.update({step.uid: step.before})] if isinstance(step, Create) else []
                return [*before, *acts, lambda: self.records.update({step.uid: step.after})]
            case SetPower():
                return [
                    lambda: self._power(step.driver, step.uid, step.power),
                    lambda: self.records.update({step.uid: step.after}),
                ]
            case Restart():
                return [
                    lambda: self._power(step.driver, step.uid, PowerState.STOPPED),
                    lambda: self._power(step.driver, step.uid, step.power),
                    lambda: self.records.update({step.uid: step.after}),
                ]
            case ShutDown():
                return [
                    lambda: self.records.update({step.uid: step.before}),
                    lambda: self._power(step.driver, step.uid, PowerState.STOPPED),
                ]
            case Destroy():
                return [
                    lambda: self.records.update({step.uid: step.before}),
                    lambda: self.there.pop((step.driver, CLUSTER, step.uid), None),
                    lambda: self.records.pop(step.uid),
                ]
            case Acknowledge():
                return [lambda: self.records.update({step.uid: step.after})]
            case Forget():
                return [lambda: self.records.pop(step.uid)]

    def _put(self, step: Create | Update) -> None:
        vm = step.vm
        self.add(
            instance(
                vm.uid,
                epoch=vm.epoch,
                generation=vm.generation,
                power=ObservedPower(vm.spec.power_state.value),
                vcpu=vm.spec.vcpu,
                memory_in_mb=vm.spec.memory_in_mb,
            ),
            step.driver,
        )

    def _power(self, driver: str, uid: str, power: PowerState) -> None:
        key = (driver, CLUSTER, uid)
        self.there[key] = replace(self.there[key], power=ObservedPower(power.value))


small = st.integers(1, 3)
specs = st.builds(
    microvm_spec,
    vcpu=st.integers(1, 2),
    power_state=st.sampled_from(PowerState),
    drift_policy=st.sampled_from(DriftPolicy),
    provider=st.sampled_from([None, "qemu", "simulated", "elsewhere"]),
    recovery=st.builds(Recovery, on_detach=st.none() | st.sampled_from(OnDetach)),
)
assignments = st.builds(
    lambda uid, tombstone, spec, epoch, generation, repair, restart: assignment(
        uid,
        tombstone=tombstone,
        spec=spec,
        epoch=epoch,
        generation=generation,
        repair_seq=repair,
        restart_seq=restart,
    ),
    st.sampled_from(UIDS),
    st.booleans(),
    specs,
    small,
    small,
    st.integers(0, 2),
    st.integers(0, 2),
)
records = st.builds(
    record,
    st.sampled_from(UIDS),
    epoch=small,
    phase=st.sampled_from(RecordPhase),
    driver=st.sampled_from(DRIVERS),
    generation=small,
    repair_seq=st.integers(0, 2),
    restart_seq=st.integers(0, 2),
    shut_down=st.booleans(),
)
instances = st.builds(
    instance,
    st.sampled_from([*UIDS, None]),
    cluster_id=st.sampled_from([CLUSTER, CLUSTER, "theirs", None]),
    epoch=st.none() | small,
    generation=st.none() | small,
    power=st.sampled_from([ObservedPower.RUNNING, ObservedPower.STOPPED, ObservedPower.PAUSED]),
    vcpu=st.none() | st.integers(1, 2),
    memory_in_mb=st.sampled_from([None, 128, 256]),
    cause=st.sampled_from([None, None, LEASE_ENDED, "process exited (signal 9)"]),
)


@st.composite
def worlds(draw: st.DrawFn, *, may_be_blind: bool = True) -> World:
    blind = st.sampled_from([{}, {}, {"qemu": "no answer"}, {"simulated": "no answer"}])
    made = World(
        wanted={each.uid: each for each in draw(st.lists(assignments, max_size=3))},
        records={each.uid: each for each in draw(st.lists(records, max_size=3))},
        blind=draw(blind) if may_be_blind else {},
    )
    for found in draw(st.lists(instances, max_size=4)):
        made.add(found, draw(st.sampled_from(DRIVERS)))
    return made


@given(worlds())
def test_only_a_tombstone_destroys(world: World) -> None:
    for uid, step in world.plan().steps.items():
        if isinstance(step, Destroy):
            assert world.wanted[uid].is_tombstone
            assert world.wanted[uid].epoch == step.epoch


@given(worlds())
def test_a_tombstone_is_confirmed_only_when_nothing_is_left(world: World) -> None:
    for uid, epoch in world.plan().confirmed.items():
        assert world.wanted[uid].is_tombstone
        assert world.wanted[uid].epoch == epoch
        assert uid not in world.records
        assert not world.blind
        assert not any(cluster == CLUSTER and each == uid for _, cluster, each in world.there)


@given(worlds())
def test_planning_again_gives_the_same(world: World) -> None:
    assert world.plan() == world.plan()


@given(worlds())
def test_nothing_is_done_under_a_driver_that_cannot_list(world: World) -> None:
    for step in world.plan().steps.values():
        assert isinstance(step, Forget) or step.driver not in world.blind


@given(worlds())
def test_what_nobody_accounts_for_is_reported_and_what_is_accounted_for_is_not(world: World) -> None:
    decided = world.plan()
    reported = {id(found.instance) for found in decided.unmanaged}
    for (driver, cluster, uid), found in world.there.items():
        if driver in world.blind:
            continue
        if cluster != CLUSTER or uid not in world.wanted:
            assert id(found) in reported
        step = decided.steps.get(uid) if uid is not None else None
        if cluster == CLUSTER and isinstance(step, Update | SetPower | Restart) and step.driver == driver:
            assert id(found) not in reported


@given(worlds(may_be_blind=False), st.data())
@settings(max_examples=300)
def test_carrying_out_the_plan_ends_as_wanted_whatever_is_interrupted(world: World, data: st.DataObject) -> None:
    strangers = {key: found for key, found in world.there.items() if key[1] != CLUSTER or key[2] not in world.wanted}
    for _ in range(30):
        decided = world.plan()
        if not decided.steps:
            break
        for step in decided.steps.values():
            world.carry_out(step, stop_after=data.draw(st.sampled_from([0, 1, 2, 9, 9, 9])))
    for _ in range(12):
        for step in world.plan().steps.values():
            world.carry_out(step)
    decided = world.plan()
    assert not decided.steps
    assert {key: world.there.get(key) for key in strangers} == strangers
    for uid, wanted in world.wanted.items():
        if uid in decided.refused or (uid in decided.held and "drift" not in decided.held[uid]):
            continue
        if wanted.spec is None:
            assert decided.confirmed[uid] == wanted.epoch
            continue
        kept = world.records[uid]
        assert (kept.phase, kept.epoch, kept.generation) == (RecordPhase.ACTIVE, wanted.epoch, wanted.generation)
        assert kept.repair_seq >= wanted.repair_seq
        assert kept.restart_seq >= wanted.restart_seq
        copy = world.there.get((kept.driver, CLUSTER, uid))
        assert copy is None or copy.epoch == wanted.epoch
        if uid not in decided.held:
            assert not differences(wanted.spec, copy)
        else:
            assert wanted.spec.drift_policy is DriftPolicy.REPORT


def lets_run(step: Step, spec: MicroVMSpec, seen: Instance | None) -> bool:
    """Whether the guest may run guest instructions, or exist as a process, only because of the step."""
    match step:
        case Create() | Update():
            return spec.power_state is not PowerState.STOPPED
        case SetPower():
            pauses = step.power is PowerState.PAUSED and seen is not None and seen.power is ObservedPower.RUNNING
            return step.power is not PowerState.STOPPED and not pauses
        case Restart():
            return True
        case _:
            return False


@given(worlds(), st.booleans())
def test_without_a_lease_nothing_is_let_run_that_needs_one_and_all_else_is_as_with_one(
    world: World, ends: bool
) -> None:
    world.may_run = False
    without = world.plan()
    world.may_run = True
    decided = world.plan()
    for uid, wanted in world.wanted.items():
        step = decided.steps.get(uid)
        seen = None
        if step is not None and not isinstance(step, Forget):
            seen = world.there.get((step.driver, CLUSTER, uid))
        needs = wanted.spec is not None and detach_action(wanted.spec) is not OnDetach.KEEP
        if step is not None and needs and wanted.spec is not None and lets_run(step, wanted.spec, seen):
            assert without.held[uid] == "waits for a lease"
            assert uid not in without.steps
        else:
            assert without.steps.get(uid) == step
    assert (without.confirmed, without.refused, without.unmanaged) == (
        decided.confirmed,
        decided.refused,
        decided.unmanaged,
    )
    world.shut_down = ends
    for uid, step in world.plan().steps.items():
        spec = world.wanted[uid].spec if uid in world.wanted else None
        if isinstance(step, ShutDown):
            assert spec is not None
            assert detach_action(spec) is OnDetach.SHUTDOWN
        elif ends and spec is not None and detach_action(spec) is OnDetach.SHUTDOWN:
            seen = None if isinstance(step, Forget) else world.there.get((step.driver, CLUSTER, uid))
            assert not lets_run(step, spec, seen), "it would be shut down again at once"


def only(world: World) -> Step:
    (step,) = world.plan().steps.values()
    return step


def test_never_seen_is_created_with_the_default_driver() -> None:
    step = only(World(wanted={"a": assignment()}))
    assert isinstance(step, Create)
    assert (step.driver, step.before.phase, step.after.phase) == ("simulated", RecordPhase.CREATING, RecordPhase.ACTIVE)


def test_the_spec_may_name_another_driver() -> None:
    step = only(World(wanted={"a": assignment(spec=microvm_spec(provider="qemu"))}))
    assert isinstance(step, Create)
    assert step.driver == "qemu"


def test_a_driver_that_the_host_does_not_have_is_refused_with_the_field() -> None:
    decided = World(wanted={"a": assignment(spec=microvm_spec(provider="xen"))}).plan()
    assert not decided.steps
    assert decided.refused["a"].pointer == "/spec/provider"
    assert decided.refused["a"].permanent
    assert "qemu, simulated" in decided.refused["a"].message


def test_an_unfinished_create_is_completed() -> None:
    world = World({"a": assignment()}, {"a": record(phase=RecordPhase.CREATING)})
    step = only(world.add(instance()))
    assert isinstance(step, Create)
    assert not step.then_update


def test_an_unfinished_create_of_another_generation_is_completed_and_brought_up_to_date() -> None:
    world = World({"a": assignment(generation=2)}, {"a": record(phase=RecordPhase.CREATING)})
    step = only(world.add(instance()))
    assert isinstance(step, Create)
    assert step.then_update


def test_a_new_generation_updates_what_is_there_and_creates_what_is_not() -> None:
    world = World({"a": assignment(generation=2)}, {"a": record()})
    assert isinstance(only(world), Create)
    assert isinstance(only(world.add(instance())), Update)


def test_a_label_change_alone_does_nothing() -> None:
    changed = replace(assignment(), labels={"tier": "web"})
    assert not World({"a": changed}, {"a": record()}).add(instance()).plan().steps


@pytest.mark.parametrize(
    ("power", "kind"),
    [(PowerState.RUNNING, Restart), (PowerState.PAUSED, Restart), (PowerState.STOPPED, Acknowledge)],
)
def test_a_restart(power: PowerState, kind: type) -> None:
    wanted = assignment(spec=microvm_spec(power_state=power), restart_seq=1)
    step = only(World({"a": wanted}, {"a": record()}).add(instance(power=ObservedPower(power.value))))
    assert isinstance(step, kind)
    assert isinstance(step, Restart | Acknowledge)
    assert step.after.restart_seq == 1


def test_power_drift_is_set_right() -> None:
    step = only(
        World({"a": assignment()}, {"a": record()}).add(instance(power=ObservedPower.STOPPED, cause="signal 9"))
    )
    assert isinstance(step, SetPower)
    assert (step.power, step.drift) == (PowerState.RUNNING, "power_state (signal 9)")


def test_other_drift_is_updated() -> None:
    step = only(World({"a": assignment()}, {"a": record()}).add(instance(memory_in_mb=64)))
    assert isinstance(step, Update)
    assert step.drift == "memory_in_mb"


def test_reported_drift_is_left_alone_until_a_repair_is_asked_for() -> None:
    spec = microvm_spec(drift_policy=DriftPolicy.REPORT)
    world = World({"a": assignment(spec=spec)}, {"a": record()}).add(instance(power=ObservedPower.STOPPED))
    decided = world.plan()
    assert not decided.steps
    assert decided.held["a"] == "power_state drifted; drift_policy is report"
    world.wanted["a"] = assignment(spec=spec, repair_seq=1)
    step = only(world)
    assert isinstance(step, SetPower)
    assert step.after.repair_seq == 1


def test_an_older_assignment_does_nothing_to_a_newer_placement() -> None:
    for tombstone in (False, True):
        decided = World({"a": assignment(epoch=1, tombstone=tombstone)}).add(instance(epoch=2)).plan()
        assert not decided.steps
        assert not decided.confirmed
        assert "epoch 2" in decided.held["a"]


def test_a_stale_copy_that_no_tombstone_names_is_reported() -> None:
    world = World({"a": assignment(epoch=2)}).add(instance(epoch=1), "qemu")
    decided = world.plan()
    assert isinstance(decided.steps["a"], Create)
    assert [found.instance.epoch for found in decided.unmanaged] == [1]


def test_a_stale_copy_where_the_new_one_belongs_is_reported_until_the_driver_has_taken_it_over() -> None:
    world = World({"a": assignment(epoch=2)}, {"a": record(epoch=1)}).add(instance(epoch=1))
    decided = world.plan()
    assert isinstance(decided.steps["a"], Create)
    assert [found.instance.epoch for found in decided.unmanaged] == [1]
    world.carry_out(decided.steps["a"])
    assert not world.plan().unmanaged


def test_a_lost_journal_adopts_without_restarting_anything() -> None:
    step = only(World({"a": assignment(restart_seq=3, repair_seq=2)}).add(instance()))
    assert isinstance(step, Acknowledge)
    assert msgspec.structs.asdict(step.after) == msgspec.structs.asdict(record(restart_seq=3, repair_seq=0))


def test_a_tombstone_of_something_never_created_is_confirmed_at_once() -> None:
    assert World({"a": assignment(tombstone=True)}).plan().confirmed == {"a": 1}


def test_a_record_of_something_unknown_everywhere_is_forgotten() -> None:
    world = World(records={"a": record()})
    assert isinstance(only(world), Forget)
    world.blind = {"qemu": "no answer"}
    assert not world.plan().steps


def pausing(**changes: object) -> MicroVMSpec:
    return microvm_spec(recovery=Recovery(on_detach=OnDetach.PAUSE), **changes)


@pytest.mark.parametrize("power", [ObservedPower.STOPPED, ObservedPower.PAUSED])
@pytest.mark.parametrize("policy", list(DriftPolicy))
def test_what_the_leases_end_did_is_undone_whatever_the_policy_and_is_no_repair(
    power: ObservedPower, policy: DriftPolicy
) -> None:
    spec = pausing(drift_policy=policy)
    world = World({"a": assignment(spec=spec)}, {"a": record()}).add(instance(power=power, cause=LEASE_ENDED))
    world.may_run = False
    assert world.plan().held == {"a": "waits for a lease"}
    world.may_run = True
    step = only(world)
    assert isinstance(step, SetPower)
    assert (step.power, step.drift, step.after) == (PowerState.RUNNING, None, record())


def test_what_was_paused_and_then_ended_with_the_lease_is_paused_again() -> None:
    spec = pausing(power_state=PowerState.PAUSED, drift_policy=DriftPolicy.REPORT)
    world = World({"a": assignment(spec=spec)}, {"a": record()})
    world.add(instance(power=ObservedPower.STOPPED, cause=LEASE_ENDED))
    step = only(world)
    assert isinstance(step, SetPower)
    assert step.power is PowerState.PAUSED


def test_a_running_guest_may_be_paused_and_stopped_without_a_lease() -> None:
    for power in (PowerState.PAUSED, PowerState.STOPPED):
        world = World({"a": assignment(spec=pausing(power_state=power))}, {"a": record()}).add(instance())
        world.may_run = False
        step = only(world)
        assert isinstance(step, SetPower)
        assert step.power is power


def test_a_lease_that_is_about_to_end_has_a_guest_shut_down_once_and_a_new_one_starts_it() -> None:
    spec = microvm_spec(recovery=Recovery(on_detach=OnDetach.SHUTDOWN), drift_policy=DriftPolicy.REPORT)
    world = World({"a": assignment(spec=spec)}, {"a": record()}, shut_down=True).add(instance())
    step = only(world)
    assert isinstance(step, ShutDown)
    world.carry_out(step)
    assert world.records["a"].shut_down
    assert world.plan().held == {"a": "waits for a lease"}
    world.may_run = world.shut_down = False
    assert world.plan().held == {"a": "waits for a lease"}
    world.may_run = True
    step = only(world)
    assert isinstance(step, SetPower)
    assert (step.power, step.drift) == (PowerState.RUNNING, None)
    world.carry_out(step)
    assert world.records["a"] == record()
    assert not world.plan().steps


def test_a_shutdown_that_did_not_happen_is_forgotten() -> None:
    spec = microvm_spec(recovery=Recovery(on_detach=OnDetach.SHUTDOWN))
    world = World({"a": assignment(spec=spec)}, {"a": record(shut_down=True)}).add(instance())
    step = only(world)
    assert isinstance(step, Acknowledge)
    assert not step.after.shut_down


def test_who_destroys_says_on_whose_order() -> None:
    ordered = dataclasses.replace(assignment(tombstone=True), reason="not needed (alice)")
    step = only(World({"a": ordered}).add(instance()))
    assert isinstance(step, Destroy)
    assert step.reason == "tombstone: not needed (alice)"


# -- room --------------------------------------------------------------------------------------------------------------


def crowded(**changes: object) -> World:
    """A host of 4 vcpu on which a lost history left 2 in use, and two microVMs of 2 vcpu are assigned."""
    spec = microvm_spec(vcpu=2)
    world = World({uid: assignment(uid, spec=spec) for uid in ("a", "b")}, capacity=Amount(vcpu=4, memory_in_mb=4096))
    world.records = {"a": record("a"), "b": record("b")}
    for uid in ("a", "b"):
        world.add(instance(uid, vcpu=2, power=ObservedPower.STOPPED))
    return replace(world.add(instance("lost", vcpu=2)), **changes)


def test_what_has_no_room_beside_a_lost_history_waits() -> None:
    decided = crowded().plan()
    assert isinstance(decided.steps["a"], SetPower)
    assert "b" not in decided.steps
    assert decided.refused["b"].code == "NoRoom"
    assert "take 2 vcpu and 128 MB of memory beyond" in decided.refused["b"].message
    assert decided.taken == Amount(microvms=1, vcpu=2, memory_in_mb=128)


def test_what_runs_or_is_being_started_has_its_room_before_others() -> None:
    running = crowded()
    running.add(instance("b", vcpu=2))
    for world in (running, crowded(acting=frozenset({"b"}))):
        decided = world.plan()
        assert decided.refused.keys() == {"a"}


@pytest.mark.parametrize(
    "harmless",
    [
        instance("lost", vcpu=2, power=ObservedPower.STOPPED),
        instance("lost", vcpu=2, cluster_id="theirs"),
        instance("a", vcpu=2, epoch=0),
    ],
    ids=["stopped", "of another cluster", "an older copy of what is assigned"],
)
def test_only_running_copies_of_ours_take_room(harmless: Instance) -> None:
    world = crowded()
    del world.there["simulated", CLUSTER, "lost"]
    assert not world.add(harmless, "qemu").plan().refused


def test_what_runs_does_not_grow_into_what_a_lost_history_left() -> None:
    world = crowded()
    world.wanted["a"] = assignment("a", spec=microvm_spec(vcpu=3), generation=2)
    world.add(instance("a", vcpu=1))
    assert world.plan().refused["a"].code == "NoRoom"
    del world.there["simulated", CLUSTER, "lost"]
    assert not world.plan().refused


@pytest.mark.parametrize(
    ("uid", "epoch"), [("ended", 1), ("c", 2)], ids=["to be ended, and still there", "a newer copy of what is assigned"]
)
def test_what_runs_in_another_way_than_assigned_takes_room(uid: str, epoch: int) -> None:
    world = crowded()
    del world.there["simulated", CLUSTER, "lost"]
    world.wanted.update({"ended": assignment("ended", tombstone=True), "c": assignment("c")})
    world.add(instance(uid, vcpu=3, epoch=epoch))
    decided = world.plan()
    assert decided.refused.keys() >= {"b"}
    assert decided.taken == (Amount(vcpu=2) if uid == "c" else Amount(microvms=1, vcpu=3, memory_in_mb=128))


def test_what_a_lost_history_left_leaves_is_given_out_again() -> None:
    world = crowded()
    world.add(instance("lost", vcpu=2, power=ObservedPower.STOPPED))
    assert world.plan().steps.keys() == {"a", "b"}
