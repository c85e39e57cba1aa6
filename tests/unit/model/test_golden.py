"""Golden entries: what clusters have in their logs is read and replayed by every later build."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from support.invariants import check_state

from controlplane.machine.apply import apply
from controlplane.machine.codec import digest_text
from controlplane.machine.draft import DIGEST_FORMAT
from controlplane.machine.entry import apply_entry
from controlplane.machine.outcome import Change, Rejected
from controlplane.machine.state import State
from controlplane.model.commands import KINDS, decode_entry, encode_entry, open_payload

ROOT = Path(__file__).resolve().parents[3]
LOG = ROOT / "schemas" / "log"
GOLDEN = sorted(path for path in (LOG / "golden").glob("*.json") if not path.name.startswith("history."))
HISTORIES = sorted((LOG / "golden").glob("history.*.json"), key=lambda path: int(path.name.split(".")[1]))


def stem(path: Path) -> str:
    return path.name.split(".")[0]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def newest(kind: str) -> dict[str, Any]:
    return read(max((path for path in GOLDEN if stem(path) == kind), key=lambda path: int(path.name.split(".")[1])))


def schema_of(name: str) -> Draft202012Validator:
    resources = [
        (path.name, Resource.from_contents({"$schema": "https://json-schema.org/draft/2020-12/schema", **read(path)}))
        for path in LOG.glob("*.schema.json")
    ]
    schema = {"$ref": f"{name}.schema.json"}
    return Draft202012Validator(schema, registry=Registry().with_resources(resources))


def test_kinds_are_appended_and_never_renamed() -> None:
    assert {stem(path) for path in GOLDEN} == set(KINDS)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_golden_entry_reads_and_applies(path: Path) -> None:
    recorded = read(path)
    (envelope,) = decode_entry(bytes.fromhex(recorded["entry_hex"]))
    for field in ("kind", "id", "at", "actor", "key", "trace"):
        assert getattr(envelope, field) == recorded["envelope"][field]
    assert envelope.kind == stem(path)
    command = open_payload(envelope)
    assert type(command) is KINDS[envelope.kind]
    assert msgspec.msgpack.decode(envelope.payload) == recorded["envelope"]["payload"]
    _, outcome, _ = apply(State(cluster_id="test"), envelope, index=1, term=1)
    assert isinstance(outcome, Rejected) or outcome.revision == int(outcome.change is not Change.UNCHANGED)


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_golden_entry_is_what_this_build_writes(kind: str) -> None:
    data = bytes.fromhex(newest(kind)["entry_hex"])
    assert encode_entry(decode_entry(data)) == data
    (envelope,) = decode_entry(data)
    encoder = msgspec.msgpack.Encoder(order="deterministic")
    assert encoder.encode(open_payload(envelope)) == bytes(envelope.payload)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.name)
def test_a_recorded_history_leads_to_the_recorded_outcomes(path: Path) -> None:
    recorded = read(path)
    state = State(cluster_id="golden")
    for index, entry in enumerate(recorded["entries"], start=1):
        state, outcomes, _ = apply_entry(state, bytes.fromhex(entry["entry_hex"]), index=index, term=1)
        ((_, outcome),) = outcomes
        assert entry["outcome"] == (outcome.code if isinstance(outcome, Rejected) else outcome.change)
        check_state(state)
    assert state.revision == recorded["revision"]
    # Records may gain fields, which changes their digest; the newest history says the present one.
    if path == HISTORIES[-1]:
        assert digest_text(state) == recorded["digest"]
        assert {entry["kind"] for entry in recorded["entries"]} == set(KINDS)


DIGEST_OF_THE_FIRST_HISTORY = {
    1: "b657cef1f7908a43c5a181e380897d8f",
    2: "94fd58a86191772da38acb3be2f67b42",
    3: "21663891d16ae8784ac3304e0e5b7430",
    4: "60f4ac6971306267c64f2fbb135b313c",
    5: "6df7c07d9d77572a17ab0806e5165e9f",
    6: "3b151b3ef029e525d8c00e5abb10bb3d",
    7: "a5d154d821647b9fcac369445027ca9f",
}
"""By digest format. A change that breaks this adds a line here and raises DIGEST_FORMAT: nodes of both builds run side
by side during an upgrade and compare their digests, and snapshots of the older one are loaded."""


def test_another_digest_has_another_format() -> None:
    state = State(cluster_id="golden")
    for index, entry in enumerate(read(HISTORIES[0])["entries"], start=1):
        state, _, _ = apply_entry(state, bytes.fromhex(entry["entry_hex"]), index=index, term=1)
    assert max(DIGEST_OF_THE_FIRST_HISTORY) == DIGEST_FORMAT
    assert digest_text(state) == DIGEST_OF_THE_FIRST_HISTORY[DIGEST_FORMAT]


# -- JSON Schema -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(LOG.glob("*.schema.json")), ids=lambda path: path.name)
def test_schemas_are_schemas(path: Path) -> None:
    Draft202012Validator.check_schema(read(path))


@pytest.mark.parametrize("kind", KINDS)
def test_golden_entries_satisfy_their_schema(kind: str) -> None:
    schema_of("entry").validate({"v": 1, "commands": [newest(kind)["envelope"]]})
    schema_of(kind).validate(newest(kind)["envelope"]["payload"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_refuses_what_is_not_of_the_kind(kind: str) -> None:
    envelope = newest(kind)["envelope"]
    other = "act" if kind != "act" else "place"
    for wrong in ({**envelope, "payload": {}}, {**envelope, "kind": "unheard_of"}, {**envelope, "kind": other}):
        assert not schema_of("entry").is_valid({"v": 1, "commands": [wrong]})
    assert not schema_of("entry").is_valid({"v": 2, "commands": []})


def test_nothing_generated_is_stale() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "schemas" / "generate_log.py", "--check"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
