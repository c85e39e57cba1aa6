"""An operator's override: for how long, why, and taken back."""

from __future__ import annotations

import pytest
from support.driven import DrivenMachine
from support.invariants import check_snapshot

from controlplane.machine.outcome import Change, Code
from controlplane.machine.overrides import MAX_OVERRIDE_S, MAX_REASON
from controlplane.model.commands import CancelOverride, OverrideBreaker
from controlplane.model.resources import BREAKER, Override

CANCEL = CancelOverride(of=BREAKER)


def test_it_is_kept_with_who_said_it_and_when_it_ends() -> None:
    machine = DrivenMachine()
    done = machine.accept(OverrideBreaker(for_s=60, reason=" the rack burnt down "), actor="bob", at=5_000)
    assert (done.change, done.revision) == (Change.CHANGED, 1)
    expected = Override(actor="bob", at=5_000, until=65_000, reason="the rack burnt down")
    assert machine.state.overrides[BREAKER] == expected
    check_snapshot(machine.state)
    machine.accept(OverrideBreaker(for_s=1, reason="again"), at=6_000)
    assert machine.state.overrides[BREAKER].until == 7_000
    machine.accept(CANCEL)
    assert BREAKER not in machine.state.overrides
    assert machine.state.digest == DrivenMachine().state.digest


@pytest.mark.parametrize("for_s", [0, -1, MAX_OVERRIDE_S + 1, 2**63])
def test_it_lasts_for_some_time_and_not_for_ever(for_s: int) -> None:
    DrivenMachine().refuse(OverrideBreaker(for_s=for_s, reason="x"), Code.INVALID, "/for_s")


@pytest.mark.parametrize("reason", ["", "  ", "x" * (MAX_REASON + 1)])
def test_it_needs_a_reason(reason: str) -> None:
    DrivenMachine().refuse(OverrideBreaker(for_s=1, reason=reason), Code.INVALID, "/reason")


def test_what_is_not_overridden_cannot_be_taken_back() -> None:
    DrivenMachine().refuse(CANCEL, Code.NOT_FOUND)
