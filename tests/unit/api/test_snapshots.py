"""A snapshot over the API: what it is made of is the state, every acknowledged write in it, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from unit.api.rig import Rig

from controlplane.consensus.configuration import decode
from controlplane.machine.codec import Loader, digest_text
from controlplane.machine.state import State
from controlplane.manifest import Manifest, decode_manifest, verify_chunk
from controlplane.replica.snapshots import IDLE_S, MAX_HELD

UNKNOWN = "0" * 26


def take(api: Rig) -> tuple[dict[str, Any], Manifest]:
    answer = api.post("/snapshots")
    assert answer.status_code == 201, answer.text
    taken = answer.json()
    manifest = api.get(f"/snapshots/{taken['id']}/manifest")
    assert manifest.headers["Content-Type"] == "application/octet-stream"
    return taken, decode_manifest(manifest.content)


def chunks(api: Rig, id_: str, manifest: Manifest) -> list[bytes]:
    answer = api.post(f"/snapshots/{id_}/chunks", {"names": [ref.name for ref in manifest.chunks]})
    assert answer.status_code == 200, answer.text
    found, at = [], 0
    for ref in manifest.chunks:
        found.append(answer.content[at : at + ref.size])
        verify_chunk(ref, found[-1])
        at += ref.size
    assert at == len(answer.content)
    return found


def load(manifest: Manifest, parts: list[bytes]) -> State:
    loader = Loader(manifest.header)
    for part in parts:
        loader.add(part)
    return loader.finish()


def test_holds_every_acknowledged_write(api: Rig) -> None:
    api.with_host("h1")
    for number in range(30):
        api.put_vm(f"web-{number}", metadata={"user-data": "x" * 100})
    api.active("web")
    taken, manifest = take(api)
    assert (taken["cluster_id"], taken["revision"]) == ("test", api.replica.state.revision)
    assert (taken["chunks"], taken["size"]) == (len(manifest.chunks), manifest.size)
    assert decode(manifest.configuration) == api.members.configuration
    state = load(manifest, chunks(api, taken["id"], manifest))
    assert digest_text(state) == api.digest
    assert len(state.microvms) == 31


def test_stays_as_it_is_while_writes_go_on(api: Rig) -> None:
    api.with_host()
    api.put_vm("a")
    before = api.digest
    taken, manifest = take(api)
    api.put_vm("b")
    assert digest_text(load(manifest, chunks(api, taken["id"], manifest))) == before
    again, newer = take(api)
    assert digest_text(load(newer, chunks(api, again["id"], newer))) == api.digest != before
    assert {ref.name for ref in manifest.chunks} & {ref.name for ref in newer.chunks}, "what did not change is shared"


def test_an_empty_state(api: Rig) -> None:
    taken, manifest = take(api)
    assert manifest.chunks == ()
    assert load(manifest, []).revision == taken["revision"] == 0


def test_one_that_was_let_go_is_gone(api: Rig) -> None:
    api.with_host()
    taken, manifest = take(api)
    assert api.delete(f"/snapshots/{taken['id']}").status_code == 200
    for answer in (
        api.get(f"/snapshots/{taken['id']}/manifest"),
        api.post(f"/snapshots/{taken['id']}/chunks", {"names": [manifest.chunks[0].name]}),
        api.get(f"/snapshots/{UNKNOWN}/manifest"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (410, "snapshot_gone")
        assert "Take another one" in answer.json()["hint"]
    assert api.delete(f"/snapshots/{UNKNOWN}").status_code == 200


def test_a_chunk_of_another_snapshot_is_not_given(api: Rig) -> None:
    taken, _ = take(api)
    answer = api.post(f"/snapshots/{taken['id']}/chunks", {"names": ["0" * 64]})
    assert (answer.status_code, answer.json()["code"]) == (410, "snapshot_gone")


def test_only_a_few_are_held_and_idle_ones_go(api: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(MAX_HELD):
        take(api)
    refused = api.post("/snapshots")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_snapshots")
    now = api.replica.clock.monotonic_s()
    monkeypatch.setattr(api.replica.clock.__class__, "monotonic_s", lambda _: now + IDLE_S + 1)
    assert api.post("/snapshots").status_code == 201
    assert len(api.snapshots.held) == 1


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (f"/snapshots/{UNKNOWN}/chunks", {"names": []}, "/names"),
        (f"/snapshots/{UNKNOWN}/chunks", {"names": ["x"]}, "/names/0"),
        (f"/snapshots/{UNKNOWN}/chunks", {"names": ["0" * 64] * 300}, "/names"),
        (f"/snapshots/{UNKNOWN}/chunks", {"name": "x"}, "/name"),
        ("/snapshots/x/chunks", {"names": ["0" * 64]}, "/id"),
    ],
)
def test_bad_input(api: Rig, path: str, body: Any, pointer: str) -> None:
    answer = api.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert pointer in {each["pointer"] for each in answer.json()["errors"]}


def test_needs_a_leader_and_a_token(api: Rig) -> None:
    api.replica.leaderless = True
    answer = api.post("/snapshots")
    assert (answer.status_code, answer.json()["code"]) == (503, "no_leader")
    assert api.request("POST", "/snapshots", headers={"Authorization": "Bearer no"}).status_code == 401
