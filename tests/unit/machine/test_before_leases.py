"""States of builds that knew no leases: their snapshots are read, and lead to what their logs lead to.

`state_before_leases.json` is a snapshot as such a build wrote it, of the first golden history up to `index`. Of two
nodes that are upgraded, one may begin from such a snapshot where the other replays its log; their digests are compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.builders import declare_microvm, declare_namespace
from support.driven import DrivenMachine
from support.invariants import check_snapshot, check_state
from support.snapshots import dump

from controlplane.machine.codec import Loader, digest_text
from controlplane.machine.draft import DIGEST_FORMAT
from controlplane.machine.entry import apply_entry
from controlplane.machine.legacy import load_dump
from controlplane.machine.outcome import Code
from controlplane.machine.recent_events import WHOLE, RecentEvents
from controlplane.machine.state import State
from controlplane.model.resources import HostPhase
from controlplane.model.spec import HostFailure, OnDetach, Recovery
from controlplane.model.types import replace

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "state_before_leases.json").read_text())
HISTORY = Path(__file__).resolve().parents[3] / "schemas" / "log" / "golden" / "history.1.json"
MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
ENTRIES = [bytes.fromhex(entry["entry_hex"]) for entry in json.loads(HISTORY.read_text())["entries"]]


def replayed(until: int) -> State:
    state = State(cluster_id="golden")
    for index, entry in enumerate(ENTRIES[:until], start=1):
        state, _, _ = apply_entry(state, entry, index=index, term=1)
    return state


def loaded() -> State:
    loader = Loader(bytes.fromhex(RECORDED["header_hex"]))
    assert loader.header.digest_format < DIGEST_FORMAT
    for chunk in RECORDED["chunks_hex"]:
        loader.add(bytes.fromhex(chunk))
    return loader.finish()


def test_a_host_that_was_unreachable_is_suspect_and_nothing_there_moves() -> None:
    state = loaded()
    assert b"unreachable" in bytes.fromhex("".join(RECORDED["chunks_hex"]))
    host = state.hosts["h2"]
    assert (host.phase, host.session, host.lease_ttl_ms, host.stale) == (HostPhase.SUSPECT, None, 0, {})
    assert {vm.detach for vm in state.microvms.values()} == {OnDetach.KEEP}
    check_state(state)
    check_snapshot(state)


def test_a_snapshot_and_a_log_of_before_leases_lead_to_one_state() -> None:
    one, other = loaded(), replayed(RECORDED["index"])
    for index, entry in enumerate(ENTRIES[RECORDED["index"] :], start=RECORDED["index"] + 1):
        assert digest_text(one) == digest_text(other)
        one, mine, _ = apply_entry(one, entry, index=index, term=1)
        other, theirs, _ = apply_entry(other, entry, index=index, term=1)
        assert mine == theirs
    # Snapshots of then have no events; every node says of itself from where on it has them.
    assert (one.recent.forgotten, other.recent.forgotten) == ((loaded().revision, WHOLE), (0, 0))
    assert dump(replace(one, recent=RecentEvents())) == dump(replace(other, recent=RecentEvents()))


@pytest.mark.parametrize(
    ("spec", "fingerprint"),
    [
        ({}, "c72003c2fa56e830ba3296992353eab6"),
        ({"recovery": MOVES, "metadata": {"z": "1", "a": "2"}}, "5f8443d1432a12b197fafcb9bbfa24dc"),
    ],
)
def test_a_request_has_the_fingerprint_that_it_had(spec: dict[str, Any], fingerprint: str) -> None:
    """It stands in snapshots, and who repeats a request over an upgrade must be known."""
    machine = DrivenMachine()
    machine.accept(declare_namespace())
    machine.accept(declare_microvm(labels={"b": "1", "a": "2"}, **spec), key="k")
    assert machine.state.keys["alice\nk"].fingerprint == fingerprint


def test_what_was_added_to_a_declaration_counts_once_it_is_set() -> None:
    machine = DrivenMachine()
    machine.accept(declare_namespace())
    machine.accept(declare_microvm(), key="k")
    machine.accept(declare_microvm(), key="k")
    for recovery in (Recovery(on_detach=OnDetach.STOP), Recovery(allow_data_loss=True)):
        reused = declare_microvm(recovery=recovery)
        machine.refuse(reused, Code.IDEMPOTENCY_KEY_REUSED, "/header/idempotency-key", key="k")


@pytest.mark.parametrize("digest", ["0" * 32, "whatever"])
def test_a_snapshot_of_format_1_is_read_whatever_digest_it_claims(digest: str) -> None:
    state = loaded()
    text = {
        "format": 1,
        "cluster_id": "golden",
        "machine_version": 1,
        "revision": state.revision,
        "digest": digest,
        "hosts": [_with_phase(host) for host in msgspec.to_builtins(list(state.hosts.values()))],
        "namespaces": list(state.namespaces.values()),
        "policies": list(state.policies.values()),
        "microvms": list(state.microvms.values()),
        "operations": list(state.operations.values()),
        "keys": [(key, state.keys[key]) for key in state.key_order],
    }
    read = load_dump(msgspec.msgpack.encode(text))
    assert (read.digest, read.hosts["h2"].phase) == (state.digest, HostPhase.SUSPECT)


def _with_phase(host: dict[str, Any]) -> dict[str, Any]:
    return {**host, "phase": "unreachable"} if host["phase"] == "suspect" else host
