"""Groups: what they do next never takes more than they may, whatever hosts, guests and users do meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import declare_group, declare_namespace, destroyed, microvm_spec, place
from support.driven import DrivenMachine

from controlplane.decide.conditions import Truth, is_ready
from controlplane.decide.group_progress import group_conditions, progress
from controlplane.decide.groups import PER_STEP, next_steps
from controlplane.machine.outcome import Code
from controlplane.model.commands import Act, Action, Delete, StepGroup
from controlplane.model.groups import GROUP_LABEL, MicroVMGroup, Rollout
from controlplane.model.resources import HostPhase, MicroVM, MicroVMPhase
from controlplane.model.spec import DriftPolicy, Kernel
from controlplane.model.types import Kind

OLD = microvm_spec()
NEW = microvm_spec(kernel=Kernel(image="demo/kernel:6.6"))
BAD = microvm_spec(kernel=Kernel(image="demo/kernel:broken"))
ONE_AT_A_TIME = Rollout(max_surge=0, max_unavailable=1, ready_deadline_s=60)
DEADLINE_MS = 60_000


class Fleet:
    """A group on two hosts, whose guests get ready unless their kernel is the broken one."""

    def __init__(self, **group: Any) -> None:
        self.machine = DrivenMachine().with_host(vcpu=64, memory_in_mb=64_000)
        self.uids = count(1)
        self.declare(**group)

    def declare(self, **group: Any) -> None:
        self.machine.accept(declare_group(**group))

    @property
    def group(self) -> MicroVMGroup:
        group = self.machine.state.microvm_group("demo", "web")
        assert group is not None
        return group

    def members(self) -> list[MicroVM]:
        return list(self.machine.state.members_of("group-web"))

    def staying(self) -> list[MicroVM]:
        return [vm for vm in self.members() if vm.phase is not MicroVMPhase.DELETING]

    def existing(self) -> int:
        """Without the tombstones of a silent host, for which nobody waits."""
        silent = self.machine.host().phase is not HostPhase.READY
        return len(self.staying()) if silent else len(self.members())

    def kernels(self) -> list[str]:
        return sorted(vm.spec.kernel.image for vm in self.staying())

    def ready(self) -> list[MicroVM]:
        return [vm for vm in self.staying() if is_ready(self.machine.state, vm)]

    def step(self, *, after_ms: int = 0) -> StepGroup | None:
        """What the runner does next, if anything; the machine takes it. It keeps both promises, whatever it finds."""
        self.machine.at += after_ms
        spec, rollout = self.group.spec, self.group.spec.rollout
        existed, were_ready, deleted = self.existing(), len(self.ready()), self.group.deletion is not None
        steps = next_steps(self.machine.state, self.machine.at, lambda: f"{next(self.uids):026d}")
        for each in steps:
            self.machine.accept(each, actor="groups")
        assert self.existing() <= max(existed, spec.replicas + rollout.max_surge)
        assert deleted or len(self.ready()) >= min(were_ready, spec.replicas - rollout.max_unavailable)
        return steps[0] if steps else None

    def place(self) -> None:
        for vm in self.members():
            if vm.phase is MicroVMPhase.PENDING:
                self.machine.accept(place(vm))

    def boot(self) -> None:
        for vm in self.staying():
            if vm.placement is not None and not is_ready(self.machine.state, vm):
                self.machine.confirm(vm, ready=vm.spec.kernel != BAD.kernel)

    def bury(self) -> None:
        for vm in self.members():
            if vm.phase is MicroVMPhase.DELETING:
                self.machine.accept(destroyed(vm))

    def settle(self) -> Fleet:
        """Until nothing happens any more, by the deadline of nobody."""
        for _ in range(200):
            before = self.machine.state
            self.step()
            self.place()
            self.boot()
            self.bury()
            if self.machine.state is before:
                return self
        raise AssertionError("it does not come to rest")


def truths(fleet: Fleet) -> dict[str, tuple[Truth, str]]:
    found = group_conditions(fleet.group, progress(fleet.machine.state, fleet.group))
    return {each.type: (each.status, each.reason) for each in found}


def test_a_group_gets_as_many_members_as_it_declares() -> None:
    fleet = Fleet(replicas=3, labels={"tier": "front"}).settle()
    assert len(fleet.ready()) == 3
    assert {vm.meta.name for vm in fleet.members()} == {"web-00001", "web-00002", "web-00003"}
    assert all(vm.meta.labels == {"tier": "front", GROUP_LABEL: "web"} for vm in fleet.members())
    assert progress(fleet.machine.state, fleet.group).complete
    assert truths(fleet) == {
        "Progressing": (Truth.FALSE, "Complete"),
        "Paused": (Truth.FALSE, "NotPaused"),
        "Degraded": (Truth.FALSE, "EnoughReady"),
    }
    assert fleet.step() is None


def test_it_grows_and_shrinks_the_unready_first_then_the_newest() -> None:
    fleet = Fleet(replicas=3).settle()
    fleet.declare(replicas=6)
    fleet.settle()
    assert len(fleet.ready()) == 6
    by_age = sorted(fleet.staying(), key=lambda vm: (vm.meta.created_at, vm.meta.uid))
    fleet.machine.confirm(by_age[0], ready=False)
    fleet.declare(replicas=2)
    step = fleet.step()
    assert step is not None
    assert step.end[0] == by_age[0].meta.uid
    survivors = {vm.meta.uid for vm in fleet.staying()}
    assert survivors == {vm.meta.uid for vm in by_age[1:3]}


def test_with_one_unavailable_at_most_the_template_goes_through_one_by_one() -> None:
    fleet = Fleet(replicas=3, template=OLD, rollout=ONE_AT_A_TIME).settle()
    fleet.declare(replicas=3, template=NEW, rollout=ONE_AT_A_TIME)
    fewest = 3
    for _ in range(20):
        for act in (fleet.step, fleet.place, fleet.boot, fleet.bury):
            act()
            fewest = min(fewest, len(fleet.ready()))
            assert len(fleet.members()) <= 3
    assert fewest == 2
    assert fleet.kernels() == [NEW.kernel.image] * 3
    assert progress(fleet.machine.state, fleet.group).complete


def test_a_template_that_never_gets_ready_stops_the_roll_and_the_old_one_ends_it() -> None:
    fleet = Fleet(replicas=3, template=OLD, rollout=ONE_AT_A_TIME).settle()
    fleet.declare(replicas=3, template=BAD, rollout=ONE_AT_A_TIME)
    fleet.settle()
    assert len(fleet.ready()) == 2
    fleet.step(after_ms=DEADLINE_MS)
    assert truths(fleet)["Paused"] == (Truth.TRUE, "ReadyDeadlineExceeded")
    late = next(vm.meta.name for vm in fleet.staying() if vm.spec.kernel == BAD.kernel)
    assert fleet.group.stopped is not None
    assert fleet.group.stopped.message.endswith(f"such as {late}")
    assert fleet.step(after_ms=DEADLINE_MS) is None
    assert len(fleet.ready()) == 2
    fleet.declare(replicas=3, template=OLD, rollout=ONE_AT_A_TIME)
    fleet.settle()
    assert fleet.kernels() == [OLD.kernel.image] * 3
    assert progress(fleet.machine.state, fleet.group).complete


def test_a_stopped_roll_still_scales_down_and_fills_holes() -> None:
    fleet = Fleet(replicas=4, template=OLD, rollout=ONE_AT_A_TIME).settle()
    fleet.declare(replicas=4, template=BAD, rollout=ONE_AT_A_TIME)
    fleet.settle().step(after_ms=DEADLINE_MS)
    fleet.machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name=fleet.ready()[0].meta.name))
    fleet.settle()
    assert fleet.kernels() == sorted([BAD.kernel.image] * 2 + [OLD.kernel.image] * 2)
    fleet.declare(replicas=1, template=BAD, rollout=ONE_AT_A_TIME)
    fleet.settle()
    assert len(fleet.staying()) == 1


def test_what_takes_effect_in_place_replaces_nobody() -> None:
    fleet = Fleet(replicas=3, template=OLD).settle()
    uids = {vm.meta.uid for vm in fleet.members()}
    fleet.declare(replicas=3, template=microvm_spec(drift_policy=DriftPolicy.REPORT), labels={"tier": "back"})
    step = fleet.step()
    assert step is not None
    assert (set(step.renew), step.end, step.add) == (uids, [], [])
    assert {vm.spec.drift_policy for vm in fleet.staying()} == {DriftPolicy.REPORT}
    assert {vm.meta.labels["tier"] for vm in fleet.staying()} == {"back"}


def test_what_was_done_to_a_member_by_hand_is_undone() -> None:
    fleet = Fleet(replicas=2).settle()
    name = fleet.members()[0].meta.name
    fleet.machine.accept(Act(namespace="demo", name=name, action=Action.STOP))
    assert progress(fleet.machine.state, fleet.group).updated == 1
    fleet.settle()
    assert progress(fleet.machine.state, fleet.group).updated == 2


def test_a_quota_stops_it_and_it_goes_on_when_there_is_room() -> None:
    fleet = Fleet(replicas=0)
    fleet.machine.accept(declare_namespace(max_microvms=2))
    fleet.declare(replicas=3)
    fleet.settle()
    assert len(fleet.ready()) == 2
    assert truths(fleet)["Paused"] == (Truth.TRUE, "QuotaExceeded")
    assert fleet.step() is None
    fleet.machine.accept(declare_namespace(max_microvms=5))
    fleet.settle()
    assert len(fleet.ready()) == 3
    assert fleet.group.stopped is None


def test_a_thousand_members_come_in_bounded_steps() -> None:
    fleet = Fleet(replicas=0)
    fleet.declare(replicas=1_000)
    step = fleet.step()
    assert step is not None
    assert len(step.add) == PER_STEP == len(fleet.members())


def test_a_tombstone_counts_until_its_host_has_confirmed_it_and_a_lost_host_is_not_waited_for() -> None:
    fleet = Fleet(replicas=1, rollout=ONE_AT_A_TIME).settle()
    fleet.machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name=fleet.members()[0].meta.name))
    assert fleet.step() is None
    fleet.machine.lose()
    step = fleet.step()
    assert step is not None
    assert len(step.add) == 1


def test_a_deleted_group_ends_its_members_and_then_itself() -> None:
    fleet = Fleet(replicas=3).settle()
    fleet.machine.accept(Delete(kind=Kind.MICROVM_GROUP, namespace="demo", name="web", reason="over"))
    fleet.machine.refuse(declare_group(), Code.BEING_DELETED, "/name")
    assert truths(fleet)["Progressing"] == (Truth.TRUE, "Deleting")
    fleet.step()
    assert {vm.deletion.reason for vm in fleet.members() if vm.deletion is not None} == {"over"}
    fleet.machine.refuse(Delete(kind=Kind.NAMESPACE, name="demo"), Code.NAMESPACE_NOT_EMPTY, "/name")
    fleet.bury()
    fleet.step()
    assert fleet.machine.state.microvm_group("demo", "web") is None
    fleet.machine.accept(Delete(kind=Kind.NAMESPACE, name="demo"))


# -- whatever happens --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    replicas: int
    template: int
    surge: int
    unavailable: int

    def apply(self, fleet: Fleet) -> None:
        # One of the two has to be above 0.
        rollout = Rollout(
            max_surge=self.surge, max_unavailable=max(self.unavailable, int(not self.surge)), ready_deadline_s=60
        )
        fleet.declare(replicas=self.replicas, template=(OLD, NEW, BAD)[self.template], rollout=rollout)


EDITS = st.builds(Edit, st.integers(0, 5), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
MOVES = st.sampled_from(["step", "step", "place", "boot", "bury", "wait", "fall", "kill"])


def move(fleet: Fleet, what: str) -> None:
    match what:
        case "wait":
            fleet.machine.at += DEADLINE_MS
        case "fall":
            for vm in fleet.ready()[:1]:
                fleet.machine.confirm(vm, ready=False)
        case "kill":
            for vm in fleet.staying()[:1]:
                fleet.machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name=vm.meta.name))
        case _:
            getattr(fleet, what)()


@settings(max_examples=60)
@given(st.lists(EDITS | MOVES, max_size=25), st.integers(0, 5))
def test_no_step_takes_more_than_it_may_and_all_of_it_converges(story: list[Edit | str], replicas: int) -> None:
    fleet = Fleet(replicas=replicas).settle()
    for each in story:
        if isinstance(each, Edit):
            each.apply(fleet)
        else:
            move(fleet, each)
    Edit(replicas=replicas, template=1, surge=1, unavailable=0).apply(fleet)
    fleet.settle()
    assert len(fleet.ready()) == replicas
    assert fleet.step() is None
    assert progress(fleet.machine.state, fleet.group).complete
    assert fleet.kernels() == [NEW.kernel.image] * replicas
