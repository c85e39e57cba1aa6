"""Secrets through the API: taken once, shown never, refused by name; and the rotation of what seals them."""

from __future__ import annotations

import dataclasses

import pytest
from unit.api.rig import SPEC, Rig

SECRET = "correct-horse-battery-staple"
VM = "/namespaces/demo/microvms/web"


@pytest.fixture
def demo(api: Rig) -> Rig:
    api.with_host()
    return api


def body(value: str | None = SECRET, **spec: object) -> dict[str, object]:
    given = {} if value is None else {"sensitive_metadata": {"user-data": value}}
    return {"spec": {**SPEC, **spec}, **given}


def test_a_secret_is_taken_and_only_its_digest_is_told(demo: Rig) -> None:
    made = demo.put(VM, body())
    assert made.status_code == 201
    digest = made.json()["spec"]["sensitive_metadata"]["user-data"]
    assert digest.startswith("hmac-sha256:")
    told = [made.text, *(demo.get(path).text for path in (VM, "/microvms", "/operations", "/secrets", f"{VM}/why"))]
    assert not any(SECRET in text for text in told)
    assert not any(demo.vm().sealed["user-data"].box in text for text in told)
    assert SECRET not in repr(demo.replica.commands)


def test_what_was_read_can_be_declared_again(demo: Rig) -> None:
    read = demo.put(VM, body()).json()
    again = demo.put(VM, {"spec": {**read["spec"], "vcpu": 2}})
    assert (again.status_code, again.json()["generation"]) == (200, 2)
    assert again.json()["spec"]["sensitive_metadata"] == read["spec"]["sensitive_metadata"]
    assert demo.put(VM, body(vcpu=2)).json()["generation"] == 2, "the same value again is no change"
    assert demo.put(VM, body("another", vcpu=2)).json()["generation"] == 3


def test_a_dry_run_tells_that_a_secret_changes_and_not_what_it_is(demo: Rig) -> None:
    demo.put(VM, body())
    told = demo.put(f"{VM}?dry_run=true", body("another"))
    (change,) = told.json()["changes"]
    assert (change["pointer"], change["effect"]) == ("/spec/sensitive_metadata/user-data", "restart")
    assert "another" not in told.text
    assert SECRET not in told.text


@pytest.mark.parametrize("atomic", [None, False, True])
def test_a_dry_run_of_the_first_secret_changes_nothing(demo: Rig, atomic: bool | None) -> None:
    """`atomic`: of a batch; None: not in a batch."""
    before, digest = len(demo.replica.commands), demo.digest
    if atomic is None:
        told = demo.put(f"{VM}?dry_run=true", body())
        assert told.json()["outcome"] == "create"
    else:
        items = [{"kind": "MicroVM", "namespace": "demo", "name": name, **body()} for name in ("web", "db")]
        told = demo.post("/apply?dry_run=true", {"resources": items, "atomic": atomic})
        assert [each["outcome"] for each in told.json()["results"]] == ["created", "created"]
    assert told.status_code == 200
    assert SECRET not in told.text
    assert demo.digest == digest
    assert len(demo.replica.commands) == before


def test_a_batch_seals_its_secrets(demo: Rig) -> None:
    item = {"kind": "MicroVM", "namespace": "demo", "name": "web", **body()}
    answer = demo.post("/apply", {"resources": [item]})
    assert answer.json()["results"][0]["outcome"] == "created"
    assert demo.post("/apply", {"resources": [item]}).json()["results"][0]["outcome"] == "unchanged"
    assert set(demo.vm().sealed) == {"user-data"}
    assert SECRET not in repr(demo.replica.commands)


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"sensitive_metadata": {"user data": SECRET}}, "/sensitive_metadata/user data"),
        ({"sensitive_metadata": {"user-data": 7}}, "/sensitive_metadata/user-data"),
        ({"sensitive_metadata": {"user-data": SECRET * 4000}}, "/sensitive_metadata/user-data"),
        ({"sensitive_metadata": {f"k{n}": SECRET for n in range(17)}}, "/sensitive_metadata"),
        ({"spec": {**SPEC, "sensitive_metadata": {"user-data": SECRET}}}, "/spec/sensitive_metadata/user-data"),
        (
            {"spec": {**SPEC, "sensitive_metadata": {"user-data": "hmac-sha256:" + "0" * 64}}},
            "/spec/sensitive_metadata/user-data",
        ),
        (body(metadata={"user-data": "open"}), "/spec/sensitive_metadata/user-data"),
    ],
)
def test_a_wrong_secret_is_refused_by_its_name_and_not_repeated(
    demo: Rig, wrong: dict[str, object], pointer: str
) -> None:
    answer = demo.put(VM, {"spec": SPEC, **wrong})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert SECRET not in answer.text
    assert demo.replica.state.microvm("demo", "web") is None


def test_without_a_key_ring_a_secret_is_refused_and_the_rest_works(demo: Rig) -> None:
    state = demo.server.app.state
    services = state.services
    state.services = dataclasses.replace(services, vault=None)
    try:
        answer = demo.put(VM, body())
        assert (answer.status_code, answer.json()["code"]) == (409, "secrets_unavailable")
        assert answer.json()["errors"][0]["pointer"] == "/sensitive_metadata"
        assert demo.post("/secrets/actions/rotate").json()["code"] == "secrets_unavailable"
        assert demo.put(VM, body(None)).status_code == 201
    finally:
        state.services = services


def test_a_rotation_is_begun_by_who_may_and_seen_by_who_may(demo: Rig) -> None:
    demo.put(VM, body())
    (first,) = demo.get("/secrets").json()["data_keys"]
    assert (first["seals"], first["microvms"]) == (True, 1)
    answer = demo.post("/secrets/actions/rotate")
    assert answer.status_code == 202
    newest, old = answer.json()["data_keys"]
    assert (newest["seals"], newest["created_by"], old["id"]) == (True, "alice", first["id"])
    operator = demo.caller("ops", roles=["operator"])
    assert demo.post("/secrets/actions/rotate", headers=operator).status_code == 403
    assert demo.get("/secrets", headers=operator).status_code == 200
