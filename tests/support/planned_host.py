"""A host as the agent's plan sees it, what becomes of it when steps are carried out, and arbitrary ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from controlplane.agent.assignments import Assignment, Assignments
from controlplane.agent.journal import Record, RecordPhase
from controlplane.agent.plan import Found, Listing, Plan, plan
from controlplane.agent.steps import Acknowledge, Create, Destroy, Forget, Restart, SetPower, ShutDown, Step, Update
from controlplane.model.resources import Amount, ObservedPower
from controlplane.model.spec import DriftPolicy, MicroVMSpec, OnDetach, PowerState, Recovery
from controlplane.ports import LEASE_ENDED, Instance
from support.agent_values import CLUSTER, assignment, instance, record
from support.builders import microvm_spec

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
    acting: dict[str, Step] = field(default_factory=dict)

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
        for act in self.acts(step)[:stop_after]:
            act()

    def acts(self, step: Step) -> list[Callable[[], object]]:
        match step:
            case Create():
                return [
                    lambda: self.records.update({step.uid: step.before}),
                    lambda: self._put(step),
                    lambda: self.records.update({step.uid: step.after}),
                ]
            case Update():
                return [
                    lambda: self._power(step.driver, step.uid, PowerState.STOPPED),
                    lambda: self._put(step),
                    lambda: self.records.update({step.uid: step.after}),
                ]
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


def only(world: World) -> Step:
    (step,) = world.plan().steps.values()
    return step


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
