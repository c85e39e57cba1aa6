"""Envelopes and entries: what is sealed comes out again, and what this build does not know stops the node."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from support.builders import declare_microvm

from controlplane.model.commands import (
    KINDS,
    Command,
    Envelope,
    UnknownEntryError,
    decode_entry,
    encode_entry,
    open_payload,
    seal,
)


def test_every_command_has_one_kind() -> None:
    assert set(KINDS.values()) == set(get_args(Command))
    assert len(set(KINDS.values())) == len(KINDS)


def test_an_entry_keeps_what_the_proposer_stamped() -> None:
    command = declare_microvm(labels={"a": "b"})
    sealed = seal(command, id="1", at=-5, actor="alice", key="k", trace="t")
    (read,) = decode_entry(encode_entry([sealed]))
    assert (read.kind, read.id, read.at, read.actor, read.key, read.trace) == (
        "declare_microvm",
        "1",
        -5,
        "alice",
        "k",
        "t",
    )
    assert open_payload(read) == command


def test_equal_commands_have_equal_bytes() -> None:
    one = declare_microvm(labels={"a": "1", "b": "2"})
    other = declare_microvm(labels={"b": "2", "a": "1"})
    assert encode_entry([seal(one, id="1", at=1, actor="a")]) == encode_entry([seal(other, id="1", at=1, actor="a")])


def test_an_older_build_reads_past_fields_it_does_not_know() -> None:
    """A field with a default may be added to a command; who has to understand it is a matter of the machine version."""
    sealed = seal(declare_microvm(), id="1", at=1, actor="a")
    newer = {**msgspec.msgpack.decode(sealed.payload), "added_later": 1}
    envelope = Envelope(kind=sealed.kind, id="1", at=1, actor="a", payload=msgspec.Raw(msgspec.msgpack.encode(newer)))
    assert open_payload(envelope) == declare_microvm()


def test_an_unknown_kind_and_a_wrong_payload_stop_the_node() -> None:
    sealed = seal(declare_microvm(), id="1", at=1, actor="a")
    with pytest.raises(UnknownEntryError, match="unknown kind 'levitate'"):
        open_payload(Envelope(kind="levitate", id="1", at=1, actor="a", payload=sealed.payload))
    with pytest.raises(UnknownEntryError, match="'place' does not decode"):
        open_payload(Envelope(kind="place", id="1", at=1, actor="a", payload=sealed.payload))
