"""Who has room beside what runs on a host beyond what is assigned to it (`agent.room`), and over any history, nobody
starts who has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.agent_values import CLUSTER, assignment, instance, record
from support.builders import microvm_spec
from support.planned_host import World

from controlplane.agent.assignments import Assignment, definition
from controlplane.agent.steps import Create, SetPower, Step, Update
from controlplane.model.resources import Amount, ObservedPower
from controlplane.model.spec import PowerState
from controlplane.ports import Instance


def crowded(**changes: object) -> World:
    """A host of 4 vcpu on which a lost history left 2 in use, and two microVMs of 2 vcpu are assigned."""
    spec = microvm_spec(vcpu=2)
    world = World({uid: assignment(uid, spec=spec) for uid in ("a", "b")}, capacity=Amount(vcpu=4, memory_in_mb=4096))
    world.records = {"a": record("a"), "b": record("b")}
    for uid in ("a", "b"):
        world.add(instance(uid, vcpu=2, power=ObservedPower.STOPPED))
    return replace(world.add(instance("lost", vcpu=2)), **changes)


def start(uid: str) -> SetPower:
    return SetPower(uid, "simulated", "", PowerState.RUNNING, after=record(uid))


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
    for world in (running, crowded(acting={"b": start("b")})):
        decided = world.plan()
        assert decided.refused.keys() == {"a"}


@pytest.mark.parametrize("then", [assignment("c", tombstone=True), assignment("c", spec=microvm_spec(vcpu=1))])
@pytest.mark.parametrize("begun", ["start", "update", "create"])
def test_what_is_being_started_takes_its_room_whatever_was_decided_since(then: Assignment, begun: str) -> None:
    """Deleted, or to shrink, while it is between its stop and its start."""
    world = crowded()
    del world.there["simulated", CLUSTER, "lost"]
    bigger = replace(definition(CLUSTER, assignment("c")), spec=microvm_spec(vcpu=3))
    steps: dict[str, Step] = {
        "start": start("c"),
        "update": Update("c", "simulated", "", bigger, after=record("c")),
        "create": Create("c", "simulated", "", bigger, before=record("c"), after=record("c")),
    }
    world.wanted["c"] = then
    if begun != "create":
        world.add(instance("c", vcpu=3, power=ObservedPower.STOPPED))
    assert not world.plan().refused.keys() & {"a", "b"}
    world.acting = {"c": steps[begun]}
    decided = world.plan()
    assert decided.refused.keys() >= {"a", "b"}
    assert decided.taken.vcpu == (3 if then.is_tombstone else 2)


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


# -- over any history --------------------------------------------------------------------------------------------------

CAPACITY = Amount(vcpu=4, memory_in_mb=4096)
sizes = st.integers(1, 3)
powers = st.sampled_from([PowerState.RUNNING, PowerState.RUNNING, PowerState.STOPPED, PowerState.PAUSED])


class Histories(RuleBasedStateMachine):
    """One host: what the machine assigns fits what it has, a restore forgets some of it, guests crash, and steps take
    time, in which anything may change; a listing is as old as the steps that ended since it began.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World(capacity=CAPACITY)
        self.held: dict[str, int] = {}
        """vcpu that the machine holds for what is assigned."""
        self.under_way: dict[str, tuple[Step, list[Callable[[], object]]]] = {}
        self.listed: World | None = None
        self.ended: dict[str, Step] = {}
        """Since `listed` was made."""
        self.made = 0

    # -- what is assigned

    def fits(self, uid: str, vcpu: int) -> bool:
        others = sum(held for each, held in self.held.items() if each != uid)
        return others + vcpu <= CAPACITY.vcpu

    @rule(vcpu=sizes, power=powers)
    def declare(self, vcpu: int, power: PowerState) -> None:
        uid = f"{self.made}"
        if self.fits(uid, vcpu):
            self.made += 1
            self.held[uid] = vcpu
            self.world.wanted[uid] = assignment(uid, spec=microvm_spec(vcpu=vcpu, power_state=power))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), vcpu=sizes, power=powers)
    def change(self, data: st.DataObject, vcpu: int, power: PowerState) -> None:
        uid = data.draw(st.sampled_from(sorted(self.held)))
        old = self.world.wanted[uid]
        if not old.is_tombstone and self.fits(uid, max(self.held[uid], vcpu)):
            self.held[uid] = max(self.held[uid], vcpu)
            spec = microvm_spec(vcpu=vcpu, power_state=power)
            self.world.wanted[uid] = replace(old, spec=spec, generation=old.generation + 1)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.held)))
        old = self.world.wanted[uid]
        self.world.wanted[uid] = replace(old, restart_seq=old.restart_seq + 1)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.held)))
        self.world.wanted[uid] = replace(self.world.wanted[uid], spec=None)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A restore to before it was declared."""
        uid = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[uid], self.world.wanted[uid]

    # -- what happens here

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        running = sorted(key for key, copy in self.world.there.items() if copy.power is not ObservedPower.STOPPED)
        if running:
            key = data.draw(st.sampled_from(running))
            self.world.there[key] = replace(self.world.there[key], power=ObservedPower.STOPPED)

    @rule()
    def look(self) -> None:
        self.listed = replace(self.world, there=dict(self.world.there))
        self.ended = {}

    @rule()
    def settle(self) -> None:
        """Time enough for everything."""
        for _ in range(8):
            self.look()
            self.decide()
            while self.under_way:
                self._go_on(next(iter(self.under_way)))

    @precondition(lambda self: self.listed is not None)
    @rule()
    def decide(self) -> None:
        assert self.listed is not None
        unsettled = self.ended | {uid: step for uid, (step, _) in self.under_way.items()}
        seen = replace(self.listed, wanted=self.world.wanted, records=self.world.records, acting=unsettled)
        decided = seen.plan()
        for uid, step in decided.steps.items():
            if uid not in unsettled:
                self.under_way[uid] = step, self.world.acts(step)
        for uid in decided.confirmed:
            if uid not in unsettled and uid in self.held:
                del self.held[uid], self.world.wanted[uid]
        for uid in self.held.keys() - unsettled.keys() - decided.steps.keys():
            spec, copy = self.world.wanted[uid].spec, seen.there.get(("simulated", CLUSTER, uid))
            if spec is not None and copy is not None and copy.vcpu == spec.vcpu:
                self.held[uid] = spec.vcpu  # confirmed

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        self._go_on(data.draw(st.sampled_from(sorted(self.under_way))))

    def _go_on(self, uid: str) -> None:
        step, acts = self.under_way[uid]
        acts.pop(0)()
        if not acts:
            del self.under_way[uid]
            self.ended[uid] = step
        self.what_runs_fits()

    @invariant()
    def what_runs_fits(self) -> None:
        runs = sum(copy.vcpu or 0 for copy in self.world.there.values() if copy.power is not ObservedPower.STOPPED)
        assert runs <= CAPACITY.vcpu


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
