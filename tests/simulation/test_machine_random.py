"""The machine's invariants, after every step of random histories over every command kind."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulation.random_commands import KEEPS_NOTHING, RandomCommands
from simulation.replay import Seeded
from support.invariants import check_snapshot, check_state, check_step
from support.snapshots import dump, load

from controlplane.decide.breaker import FailoverLimits
from controlplane.decide.failover import failover
from controlplane.decide.gc import plan
from controlplane.machine import draft
from controlplane.machine.apply import apply, effect_of
from controlplane.machine.audit import recorded
from controlplane.machine.evacuation_rules import availability
from controlplane.machine.outcome import Applied, Outcome, Rejected
from controlplane.machine.state import State
from controlplane.machine.telling import told
from controlplane.model.commands import KINDS, seal
from controlplane.model.commands.versions import MACHINE_VERSION
from controlplane.model.gc import Trigger
from controlplane.model.resources import Availability, HostPhase, MicroVMPhase

T = TypeVar("T")


class Drawn:
    """Choices that hypothesis makes and shrinks."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def pick(self, options: Sequence[T]) -> T:
        return options[self._data.draw(st.integers(0, len(options) - 1))]

    def chance(self, percent: int) -> bool:
        return self._data.draw(st.integers(0, 99)) >= 100 - percent


def run(commands: RandomCommands, steps: int, seen: Counter[str] | None = None) -> State:
    """Applies a history and checks every step of it."""
    state = State(cluster_id="test")
    for index, given_envelope in enumerate([*commands.opening(), *[None] * steps], start=1):
        envelope = given_envelope or commands.next(state)
        before = state
        effect = effect_of(before, envelope, index=index, term=1)
        outcome = effect.outcome
        check_step(before, effect.command, effect.after, outcome, tuple(effect.events), keyed=envelope.key is not None)
        state = told(recorded(effect), [effect])
        _check_never_overfilled(before, state)
        if state is not before:
            check_state(state)
            _check_failover(state, now_ms=envelope.at)
            _check_collection(state)
        if seen is not None:
            seen[_label(envelope.kind, outcome)] += 1
            seen.update(f"phase {vm.phase}" for vm in state.microvms.values())
            seen.update(f"host {host.phase}" for host in state.hosts.values())
            seen.update(f"{availability(host)}" for host in state.hosts.values() if host.declared)
            seen.update("moved" for vm in state.microvms.values() if vm.move and vm.placement)
            seen.update("placed anew" for vm in state.microvms.values() if vm.resurrection and vm.placement)
    check_snapshot(state)
    return state


def _check_never_overfilled(before: State, after: State) -> None:
    """What a host holds grows only within its capacity."""
    for name, host in after.hosts.items():
        held = host.allocated
        was = before.hosts[name].allocated if name in before.hosts else type(held)()
        if held == was:
            continue
        assert host.inventory is not None
        capacity = host.inventory.capacity
        assert held.vcpu <= max(was.vcpu, capacity.vcpu)
        assert held.memory_in_mb <= max(was.memory_in_mb, capacity.memory_in_mb)
        assert not capacity.microvms or held.microvms <= max(was.microvms, capacity.microvms)


FAR_MS = 1 << 50


def _check_collection(state: State) -> None:
    """A plan is its run: the machine takes every command of it, in order, and what waits is as it was."""
    for limit in (1, 1000):
        made = plan(state, KEEPS_NOTHING, now_ms=2**50, limit=limit)
        again = plan(state, KEEPS_NOTHING, now_ms=2**50, limit=limit)
        assert again == made
        assert again.digest == made.digest
        after = state
        for each in made.collect:
            envelope = seal(each.command, id="", at=1, actor="gc")
            after, outcome, _ = apply(after, envelope, index=1, term=1)
            assert isinstance(outcome, Applied), (each, outcome)
        check_state(after)
        left = plan(after, KEEPS_NOTHING, now_ms=2**50, limit=1000)
        known = {(each.trigger, each.subject) for each in left.waiting}
        known |= {(each.command.trigger, each.command.subject) for each in left.collect}
        gone = {each.command.subject.host for each in made.collect if each.command.trigger is Trigger.LOST_HOST}
        assert all((each.trigger, each.subject) in known or each.subject.host in gone for each in made.waiting), (
            "nothing that waits is lost"
        )
        assert not {(each.command.trigger, each.command.subject) for each in made.collect} & {
            (each.command.trigger, each.command.subject) for each in left.collect
        }, "nothing is collected twice"


def _check_failover(state: State, *, now_ms: int) -> None:
    """Everything on a lost host is either given up, which the machine takes, or held for a reason."""
    strict, open_handed = FailoverLimits(), FailoverLimits(max_unhealthy=1.0, per_round=1)
    for limits, at in itertools.product((strict, open_handed), (now_ms, FAR_MS)):
        found = failover(state, term=1, limits=limits, now_ms=at)
        decided = {each.uid for each in found.resurrect}
        lost = [name for name, host in state.hosts.items() if host.phase in (HostPhase.DETACHED, HostPhase.FENCED)]
        assert decided | set(found.held) == {vm.meta.uid for name in lost for vm in state.microvms_on(name)}
        assert not decided & set(found.held)
        assert all(found.held.values())
        after = state
        for number, command in enumerate(found.resurrect):
            envelope = seal(command, id=f"f{number}", at=0, actor="failover")
            after, outcome, _ = apply(after, envelope, index=1, term=1)
            assert isinstance(outcome, Applied), outcome
        check_state(after)


def _label(kind: str, outcome: Outcome) -> str:
    return f"{kind} {'refused' if isinstance(outcome, Rejected) else 'applied'}"


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_invariants_hold_whatever_is_asked(data: st.DataObject) -> None:
    run(RandomCommands(Drawn(data)), steps=12)


@pytest.mark.parametrize("seed", range(12))
def test_invariants_hold_over_long_histories(seed: int) -> None:
    run(RandomCommands(Seeded(seed)), steps=400)


def test_the_histories_reach_everything() -> None:
    """Guards the generator: were nothing accepted, nothing would be tested."""
    wanted = {f"{kind} applied" for kind in KINDS} | {f"{kind} refused" for kind in KINDS}
    wanted -= {"begin_audit refused", "witness_requests refused"}  # what was seen is recorded, whatever it was
    if MACHINE_VERSION == 1:
        wanted -= {"raise_machine_version applied"}  # there is nothing to raise it to
    wanted |= {f"phase {phase}" for phase in MicroVMPhase} | {f"host {phase}" for phase in HostPhase}
    wanted |= {f"{each}" for each in Availability} | {"placed anew", "moved"}
    seen: Counter[str] = Counter()
    for seed in range(60):
        run(RandomCommands(Seeded(1_000 + seed)), steps=800, seen=seen)
        if wanted <= set(seen):
            break
    assert wanted <= set(seen), sorted(wanted - set(seen))


@pytest.mark.parametrize("seed", [7, 8])
def test_the_order_of_maps_does_not_show(seed: int) -> None:
    """Two processes whose hashes differ agree on the state, the snapshot and every outcome."""
    lines = [
        subprocess.run(
            [sys.executable, str(Path(__file__).parent / "replay.py"), str(seed), "400"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2", "31337")
    ]
    assert lines[0].strip()
    assert len(set(lines)) == 1, lines


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_a_node_that_restarts_anywhere_stays_equal(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot taken and loaded in the middle of a history changes nothing of what follows or is forgotten."""
    monkeypatch.setattr(draft, "KEPT_KEYS", 3)
    monkeypatch.setattr(draft, "KEPT_OPERATIONS", 3)
    commands = RandomCommands(Seeded(seed))
    steady = restarting = State(cluster_id="test")
    for index, given_envelope in enumerate([*commands.opening(), *[None] * 300], start=1):
        envelope = given_envelope or commands.next(steady)
        steady, one, _ = apply(steady, envelope, index=index, term=1)
        restarting, other, _ = apply(restarting, envelope, index=index, term=1)
        assert one == other
        assert steady.digest == restarting.digest
        if index % 10 == seed % 10:
            restarting = load(dump(restarting))
    assert dump(steady) == dump(restarting)
