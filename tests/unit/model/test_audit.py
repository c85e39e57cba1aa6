"""An export of the audit chain: any change of it is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audited import AuditedMachine
from support.builders import declare_microvm, declare_namespace

from controlplane.model.audit import (
    GENESIS,
    AuditOutcome,
    AuditRecord,
    BrokenChainError,
    followed,
    line_of,
    read_lines,
    sealed,
)


def exported() -> list[bytes]:
    machine = AuditedMachine()
    for name in ("a", "b", "c"):
        machine.do(declare_namespace(name))
        machine.do(declare_microvm("web", namespace=name))
        machine.do(declare_microvm("web", namespace="nowhere"))
    return [line_of(each) for each in machine.chain]


LINES = exported()


def verify(lines: Sequence[bytes]) -> list[AuditRecord]:
    return list(followed(read_lines(lines)))


def test_an_export_is_what_it_was_made_from() -> None:
    assert [each.sequence for each in verify(LINES)] == list(range(1, 11))


def test_any_language_verifies_it_in_ten_lines() -> None:
    previous = GENESIS
    for line in LINES:
        record = json.loads(line)
        claimed = record.pop("hash")
        canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert record["previous"] == previous
        assert hashlib.sha256(canonical.encode()).hexdigest() == claimed
        previous = claimed


@settings(max_examples=300)
@given(st.data())
def test_a_changed_byte_is_found(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(LINES) - 1))
    at = data.draw(st.integers(0, len(LINES[number]) - 1))
    changed = bytearray(LINES[number])
    changed[at] ^= data.draw(st.integers(1, 255))
    text = b"".join([*LINES[:number], bytes(changed), *LINES[number + 1 :]])
    with pytest.raises(BrokenChainError) as broken:
        verify(text.splitlines(keepends=True))
    assert broken.value.line in (number + 1, number + 2), "what is found broken is where it is"


@settings(max_examples=100)
@given(st.data())
def test_a_byte_more_or_less_is_found(data: st.DataObject) -> None:
    text = b"".join(LINES)
    at = data.draw(st.integers(0, len(text) - 1))
    more = data.draw(st.binary(max_size=3))
    changed = text[:at] + more + text[at + (0 if more else 1) :]
    with pytest.raises(BrokenChainError):
        verify(changed.splitlines(keepends=True))


@given(st.permutations(range(len(LINES))))
def test_another_order_is_found(order: list[int]) -> None:
    if order == sorted(order):
        return
    with pytest.raises(BrokenChainError):
        verify([LINES[number] for number in order])


@given(st.integers(1, len(LINES) - 2), st.booleans())
def test_a_record_left_out_or_doubled_is_found(number: int, double: bool) -> None:
    with pytest.raises(BrokenChainError) as broken:
        verify(
            [*LINES[: number + 1], *LINES[number if double else number + 2 :]]
            if double
            else LINES[:number] + LINES[number + 1 :]
        )
    assert broken.value.line == number + (2 if double else 1)


def test_a_record_that_is_forged_whole_breaks_the_next_one() -> None:
    records = verify(LINES)
    forged = sealed(
        AuditRecord(
            sequence=4, at=1, actor="mallory", action="delete", outcome=AuditOutcome.DONE, previous=records[2].hash
        )
    )
    with pytest.raises(BrokenChainError, match=r"line 5 \(record 5\): it does not follow"):
        verify([*LINES[:3], line_of(forged), *LINES[4:]])


def test_a_chain_that_begins_with_anything_but_its_beginning_is_found() -> None:
    forged = sealed(AuditRecord(sequence=1, at=1, action="begin_audit", outcome=AuditOutcome.DONE, previous="1" * 64))
    with pytest.raises(BrokenChainError, match="does not follow"):
        verify([line_of(forged)])
