"""A machine that a test drives: commands in, outcomes out, every invariant checked after each step."""

from __future__ import annotations

from controlplane.machine.apply import apply
from controlplane.machine.events import Event
from controlplane.machine.outcome import Applied, Code, Outcome, Rejected
from controlplane.machine.state import State
from controlplane.model.commands import Batch, Command, seal
from controlplane.model.resources import Host, MicroVM, Operation
from support.builders import (
    agent_connected,
    declare_host,
    declare_microvm,
    declare_namespace,
    detached,
    fenced,
    observation,
    place,
    report,
    suspected,
)
from support.invariants import check_snapshot, check_state, check_step
from support.snapshots import dump, load


class DrivenMachine:
    """`state` is the present state; `events` are those of the last command; time moves one second per command."""

    def __init__(self, state: State | None = None, *, at: int = 1_000_000) -> None:
        self.state = state if state is not None else State(cluster_id="test")
        self.events: tuple[Event, ...] = ()
        self.at = at
        self.index = 0
        self.term = 1

    def do(self, command: Command, *, key: str | None = None, actor: str = "alice", at: int | None = None) -> Outcome:
        self.index += 1
        self.at = self.at + 1_000 if at is None else at
        envelope = seal(command, id=f"c{self.index}", at=self.at, actor=actor, key=key)
        before = self.state
        self.state, outcome, self.events = apply(before, envelope, index=self.index, term=self.term)
        check_step(before, command, self.state, outcome, self.events, keyed=key is not None)
        check_state(self.state)
        return outcome

    def accept(
        self, command: Command, *, key: str | None = None, actor: str = "alice", at: int | None = None
    ) -> Applied:
        outcome = self.do(command, key=key, actor=actor, at=at)
        assert isinstance(outcome, Applied), outcome
        return outcome

    def refuse(
        self,
        command: Command,
        code: Code,
        pointer: str | None = None,
        *,
        key: str | None = None,
        actor: str = "alice",
        at: int | None = None,
    ) -> Rejected:
        """The command is refused for `code` about `pointer`; that nothing changed is checked by every step."""
        outcome = self.do(command, key=key, actor=actor, at=at)
        assert isinstance(outcome, Rejected), outcome
        assert (outcome.code, outcome.pointer) == (code, pointer), outcome
        return outcome

    def batch(self, *commands: Command, key: str | None = None) -> Outcome:
        sealed = [seal(each, id=f"b{self.index}.{n}", at=self.at, actor="alice") for n, each in enumerate(commands)]
        return self.do(Batch(commands=sealed), key=key)

    # -- what tests ask ------------------------------------------------------------------------------------------------

    def vm(self, name: str = "web", namespace: str = "demo") -> MicroVM:
        found = self.state.microvm(namespace, name)
        assert found is not None, f"there is no microVM {namespace}/{name}"
        return found

    def host(self, name: str = "h1") -> Host:
        return self.state.hosts[name]

    def operation(self, name: str = "web") -> Operation:
        """The newest operation of a microVM."""
        id_ = self.vm(name).operation
        assert id_ is not None
        return self.state.operations[id_]

    # -- ways to usual states ------------------------------------------------------------------------------------------

    def with_host(self, name: str = "h1", **capacity: int) -> DrivenMachine:
        """A namespace `demo` and a ready host."""
        if "demo" not in self.state.namespaces:
            self.accept(declare_namespace())
        self.accept(declare_host(name))
        self.accept(agent_connected(name, **capacity))
        return self

    def lose(self, name: str = "h1") -> DrivenMachine:
        """The host falls silent, until it is fenced."""
        session = self.host(name).session
        self.accept(suspected(name, session=session))
        self.accept(detached(name, session=session, term=self.term))
        self.accept(fenced(name, term=self.term))
        return self

    def pending(self, name: str = "web", **spec: object) -> MicroVM:
        self.accept(declare_microvm(name, **spec))
        return self.vm(name)

    def placed(self, name: str = "web", *, host: str = "h1", **spec: object) -> MicroVM:
        self.accept(place(self.pending(name, **spec), host))
        return self.vm(name)

    def active(self, name: str = "web", *, host: str = "h1", **spec: object) -> MicroVM:
        self.confirm(self.placed(name, host=host, **spec))
        return self.vm(name)

    def confirm(self, vm: MicroVM, **changes: object) -> MicroVM:
        """The host reports `vm` as asked for, but for `changes`."""
        assert vm.placement is not None
        self.accept(report(observation(vm, **changes), host=vm.placement.host))
        return self.vm(vm.meta.name, str(vm.meta.namespace))

    def restarted(self) -> DrivenMachine:
        """Another machine that went through a snapshot."""
        check_snapshot(self.state)
        other = DrivenMachine(load(dump(self.state)), at=self.at)
        other.index = self.index
        return other
