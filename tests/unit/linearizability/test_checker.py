"""The checkers: known histories, histories of a linearizable object, and tiny histories against brute force."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linearizability.checker import Verdict, check
from linearizability.explain import page, text_of_disorder, text_of_violation
from linearizability.history import ABSENT, Kind, Operation, Outcome, load, save
from linearizability.model import after, allowed
from linearizability.order import check_order


@dataclass
class Script:
    """Operations at chosen times of one register, `k`."""

    operations: list[Operation] = field(default_factory=list)

    def add(
        self,
        kind: Kind,
        call: int,
        end: int | None,
        value: int = ABSENT,
        *,
        expected: int | None = None,
        outcome: Outcome = Outcome.OK,
        revision: int | None = None,
        key: str = "k",
    ) -> Script:
        number = len(self.operations)
        self.operations.append(
            Operation(
                id=number,
                client=number,
                node="n1",
                key=key,
                kind=kind,
                call_ns=call,
                value=value,
                expected=expected,
                return_ns=end,
                outcome=outcome if end is not None else Outcome.UNKNOWN,
                revision=revision,
            )
        )
        return self

    def write(self, call: int, end: int | None, value: int, **more: object) -> Script:
        return self.add(Kind.WRITE, call, end, value, **more)  # type: ignore[arg-type]

    def read(self, call: int, end: int, value: int, **more: object) -> Script:
        return self.add(Kind.READ, call, end, value, **more)  # type: ignore[arg-type]

    def cas(self, call: int, end: int | None, expected: int, value: int, **more: object) -> Script:
        return self.add(Kind.CAS, call, end, value, expected=expected, **more)  # type: ignore[arg-type]

    def delete(self, call: int, end: int | None, **more: object) -> Script:
        return self.add(Kind.DELETE, call, end, **more)  # type: ignore[arg-type]

    @property
    def verdict(self) -> Verdict:
        return check(self.operations).verdict


REFUSED = Outcome.REFUSED

GOOD = {
    "nothing happened": Script(),
    "what was written is read": Script().write(0, 1, 1).read(2, 3, 1),
    "a read during a write sees the old or the new": Script().write(0, 9, 1).read(1, 2, 0).read(3, 4, 1),
    "two writes at once end in either order": Script().write(0, 9, 1).write(0, 9, 2).read(10, 11, 1),
    "an unknown write takes effect much later": Script().write(0, None, 1).write(1, 2, 2).read(3, 4, 2).read(5, 6, 1),
    "an unknown write never takes effect": Script().write(0, 1, 1).write(2, None, 2).read(3, 4, 1).read(99, 100, 1),
    "an unknown write between two reads of others": Script().write(0, 1, 1).cas(2, None, 1, 2).cas(3, 4, 2, 3),
    "a refused exchange while another value is there": Script().write(0, 1, 1).cas(2, 3, 7, 8, outcome=REFUSED),
    "a refused exchange between two unknown writes": Script()
    .write(0, 1, 1)
    .write(2, None, 2)
    .cas(3, 4, 1, 9, outcome=REFUSED)
    .read(5, 6, 2),
    "deleted and created again": Script().write(0, 1, 1).delete(2, 3).add(Kind.CREATE, 4, 5, 2).read(6, 7, 2),
    "a failed write is not seen": Script().write(0, 1, 1).write(2, 3, 2, outcome=Outcome.FAILED).read(4, 5, 1),
    "a failed read says nothing": Script().write(0, 1, 1).read(2, 3, 77, outcome=Outcome.FAILED),
    "the same instant is not an order": Script().write(0, 5, 1).read(5, 6, 0),
    "registers are independent": Script().write(0, 1, 1).read(2, 3, 0, key="other"),
}

BAD = {
    "a stale read": Script().write(0, 1, 1).write(2, 3, 2).read(4, 5, 1),
    "a lost write": Script().write(0, 1, 1).read(2, 3, 0),
    "a value that nobody wrote": Script().write(0, 1, 1).read(2, 3, 7),
    "a value from the future": Script().read(0, 1, 1).write(2, 3, 1),
    "a failed write that is seen": Script().write(0, 1, 1, outcome=Outcome.FAILED).read(2, 3, 1),
    "reads that go back": Script().write(0, 9, 1).read(1, 2, 1).read(3, 4, 0),
    "two exchanges of one value": Script().write(0, 1, 1).cas(2, 9, 1, 2).cas(2, 9, 1, 3),
    "an exchange that was refused although the value was there": Script()
    .write(0, 1, 1)
    .cas(2, 3, 1, 2, outcome=REFUSED),
    "a deletion that did not stay": Script().write(0, 1, 1).delete(2, 3).read(4, 5, 1),
    "a deletion of nothing": Script().delete(0, 1),
    "an unknown write twice": Script().write(0, None, 1).read(1, 2, 1).write(3, 4, 2).read(5, 6, 2).read(7, 8, 1),
    "two readers that disagree": Script().write(0, 9, 1).write(0, 9, 2).read(10, 11, 1).read(12, 13, 2),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name: str) -> None:
    assert GOOD[name].verdict is Verdict.OK


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_refused_and_explained(name: str) -> None:
    result = check(BAD[name].operations)
    assert result.verdict is Verdict.VIOLATION
    (violation,) = result.violations
    text = text_of_violation(violation)
    assert f"answered `{violation.culprit.describe()}`" in text
    assert "possible then" in text
    assert "#d04040" in page(name, result.violations)


def test_the_explanation_names_the_lost_write_and_the_stale_value() -> None:
    lost = check(BAD["a lost write"].operations).violations[0]
    assert "the acknowledged `write 1` of client 0 is not seen" in text_of_violation(lost)
    stale = check(BAD["a stale read"].operations).violations[0]
    assert "this read is stale or undone" in text_of_violation(stale)
    invented = check(BAD["a value that nobody wrote"].operations).violations[0]
    assert "nobody wrote 7" in text_of_violation(invented)


def test_what_costs_too_much_is_undecided_and_not_a_pass() -> None:
    script = Script()
    for i in range(40):
        script.write(i, 1_000, i + 1)
    script.read(2_000, 2_001, 77)
    begun = time.monotonic()
    result = check(script.operations, steps=3_000)
    assert result.verdict is Verdict.UNDECIDED
    assert result.undecided == ["k"]
    assert check(script.operations, timeout_s=0.2).verdict is Verdict.UNDECIDED
    assert time.monotonic() - begun < 20


def test_many_unknown_outcomes_are_decided() -> None:
    """Each could have taken effect at any time: without dominance these are 2**60 sets."""
    script = Script()
    for i in range(60):
        script.write(i, None, i + 1)
    script.write(100, 101, 100).read(102, 103, 100)
    for i in range(30):
        script.read(200 + 2 * i, 201 + 2 * i, 60 - i)
    assert script.verdict is Verdict.OK
    script.read(900, 901, 60)
    assert script.verdict is Verdict.VIOLATION


def test_a_history_survives_its_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    for script in (*GOOD.values(), *BAD.values()):
        save(path, script.operations)
        assert load(path) == script.operations


# -- against an object that is linearizable ----------------------------------------------------------------------------


def simulate(seed: int, *, clients: int = 6, count: int = 120, unknown: float = 0.1) -> list[Operation]:
    """What clients of a real register would record: each operation takes effect at one instant inside its interval."""
    chance = random.Random(seed)
    value, value_number, now = ABSENT, 0, 0
    operations: list[Operation] = []
    running: dict[int, tuple[Operation, bool]] = {}
    for _ in range(count * 3):
        now += chance.randint(0, 2)
        client = chance.randrange(clients)
        if client not in running:
            value_number += 1
            kind = chance.choice(list(Kind))
            expected = chance.choice([value, value_number - 1]) if kind is Kind.CAS else None
            operation = Operation(len(operations), client, "n1", "k", kind, now, value=value_number, expected=expected)
            operations.append(operation)
            running[client] = (operation, False)
            continue
        operation, done = running[client]
        if not done and chance.random() < 0.6:
            if operation.kind is Kind.READ:
                operation.value = value
            operation.outcome = Outcome.OK
            if not allowed(value, operation):
                operation.outcome = REFUSED
            value = after(value, operation)
            running[client] = (operation, True)
        elif chance.random() < unknown:
            # The answer is lost; what was not done may still be done, and here never is.
            operation.outcome = Outcome.UNKNOWN
            del running[client]
        elif done:
            operation.return_ns = now
            del running[client]
    for operation, done in running.values():
        if not done or operation.return_ns is None:
            operation.outcome = Outcome.UNKNOWN
    return operations


@given(st.integers(0, 10**9))
@settings(max_examples=150)
def test_what_a_linearizable_register_did_is_accepted(seed: int) -> None:
    assert check(simulate(seed)).verdict is Verdict.OK


def test_mutated_histories_are_refused() -> None:
    """Reads that saw an older value, at times when nothing else was going on."""
    refused = 0
    for seed in range(60):
        operations = simulate(seed, unknown=0.0)
        reads = [o for o in operations if o.kind is Kind.READ and o.outcome is Outcome.OK]
        written = [o for o in operations if o.has_effect and o.outcome is Outcome.OK and o.return_ns is not None]
        for read in reads[10:]:
            before = [o for o in written if (o.return_ns or 0) < read.call_ns and o.kind is not Kind.DELETE]
            older = [o.value for o in before[:-8] if o.value != read.value]
            if older:
                read.value = older[-1]
                break
        refused += check(operations).verdict is Verdict.VIOLATION
    assert refused >= 50


# -- against brute force -----------------------------------------------------------------------------------------------


def brute_force(operations: Sequence[Operation]) -> bool:
    """Every choice of unknown operations in every order that real time allows."""
    counted = [o for o in operations if o.outcome is not Outcome.FAILED]
    counted = [o for o in counted if o.kind is not Kind.READ or o.outcome is Outcome.OK]
    certain = [o for o in counted if o.outcome is not Outcome.UNKNOWN]
    unknown = [o for o in counted if o.outcome is Outcome.UNKNOWN]
    for chosen in range(1 << len(unknown)):
        placed = certain + [o for i, o in enumerate(unknown) if chosen >> i & 1]
        if any(_explains(order) for order in permutations(placed)):
            return True
    return False


def _explains(order: Sequence[Operation]) -> bool:
    value = ABSENT
    latest_call = -1
    for operation in order:
        ended = operation.return_ns if operation.outcome is not Outcome.UNKNOWN else None
        if ended is not None and ended < latest_call:
            return False
        latest_call = max(latest_call, operation.call_ns)
        if not allowed(value, operation):
            return False
        value = after(value, operation)
    return True


@st.composite
def tiny_histories(draw: st.DrawFn) -> list[Operation]:
    operations: list[Operation] = []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(list(Kind)))
        call = draw(st.integers(0, 8))
        outcomes = [Outcome.OK, Outcome.OK, Outcome.UNKNOWN, Outcome.FAILED]
        if kind in (Kind.CREATE, Kind.CAS, Kind.DELETE):
            outcomes.append(REFUSED)
        outcome = draw(st.sampled_from(outcomes))
        value = draw(st.integers(0, 4)) if kind is Kind.READ else number + 1
        expected = draw(st.integers(1, 4)) if kind is Kind.CAS else None
        if kind is Kind.DELETE and draw(st.booleans()):
            expected = draw(st.integers(1, 4))
        operations.append(
            Operation(
                id=number,
                client=number,
                node="n1",
                key="k",
                kind=kind,
                call_ns=call,
                value=value,
                expected=expected,
                return_ns=None if outcome is Outcome.UNKNOWN else call + draw(st.integers(0, 5)),
                outcome=outcome,
            )
        )
    return operations


@given(tiny_histories())
@settings(max_examples=1_500)
def test_it_agrees_with_brute_force(operations: list[Operation]) -> None:
    assert (check(operations).verdict is Verdict.OK) == brute_force(operations)


# -- revisions ---------------------------------------------------------------------------------------------------------


def test_revisions_in_order_are_accepted() -> None:
    script = Script().write(0, 1, 1, revision=1).write(2, 9, 2, revision=3).write(2, 9, 3, revision=2)
    script.read(10, 11, 2, revision=3).read(12, 13, 2, revision=3)
    assert check_order(script.operations) == []


@pytest.mark.parametrize(
    "script",
    [
        Script().write(0, 1, 1, revision=5).read(2, 3, 1, revision=4),
        Script().write(0, 1, 1, revision=5, key="a").write(2, 3, 2, revision=5, key="b"),
        Script().read(0, 1, 0, revision=6).write(2, 3, 1, revision=6),
        Script().write(0, 9, 1, revision=2).write(0, 9, 2, revision=2),
    ],
)
def test_revisions_out_of_order_are_found_across_registers(script: Script) -> None:
    found = check_order(script.operations)
    assert found
    assert "revision" in text_of_disorder(found[0])


def test_a_value_with_two_revisions_is_found() -> None:
    script = Script().write(0, 1, 1, revision=1).read(2, 3, 1, revision=4)
    script.operations[0] = msgspec.structs.replace(script.operations[0], value_revision=1)
    script.operations[1] = msgspec.structs.replace(script.operations[1], value_revision=2)
    (found,) = check_order(script.operations)
    assert "has the revisions 1 and 2" in found.what
