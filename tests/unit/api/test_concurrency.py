"""Preconditions, idempotency keys and races: what two clients do to one object."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from unit.api.rig import SPEC, Rig

VM = "/namespaces/demo/microvms/web"


@pytest.fixture(autouse=True)
def demo(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})


def test_if_match_lets_the_first_through_and_not_the_second(api: Rig) -> None:
    etag = api.put(VM, {"spec": SPEC}).headers["ETag"]
    first = api.put(VM, {"spec": {**SPEC, "vcpu": 2}}, headers={"If-Match": etag})
    assert first.status_code == 200
    second = api.put(VM, {"spec": {**SPEC, "vcpu": 3}}, headers={"If-Match": etag})
    assert (second.status_code, second.json()["code"]) == (412, "revision_conflict")
    assert second.json()["errors"][0]["pointer"] == "/header/if-match"
    assert api.get(VM).json()["spec"]["vcpu"] == 2
    third = api.put(VM, {"spec": {**SPEC, "vcpu": 3}}, headers={"If-Match": first.headers["ETag"]})
    assert third.status_code == 200


def test_a_changed_status_does_not_fail_if_match(api: Rig) -> None:
    api.with_host()
    etag = api.put(VM, {"spec": SPEC}).headers["ETag"]
    api.place()
    api.report()
    read = api.get(VM)
    assert read.headers["ETag"] == etag
    assert read.json()["status_revision"] > read.json()["revision"]
    assert api.put(VM, {"spec": {**SPEC, "vcpu": 2}}, headers={"If-Match": etag}).status_code == 200


def test_if_match_of_what_does_not_exist(api: Rig) -> None:
    answer = api.put(VM, {"spec": SPEC}, headers={"If-Match": '"1"'})
    assert (answer.status_code, answer.json()["code"]) == (412, "revision_conflict")


def test_deletes_and_actions_take_if_match(api: Rig) -> None:
    old = api.put(VM, {"spec": SPEC}).headers["ETag"]
    new = api.put(VM, {"spec": {**SPEC, "vcpu": 2}}).headers["ETag"]
    for method, path in (("DELETE", VM), ("POST", VM + "/actions/stop")):
        stale = api.request(method, path, headers={"If-Match": old})
        assert (stale.status_code, stale.json()["code"]) == (412, "revision_conflict")
    assert api.request("POST", VM + "/actions/restart", headers={"If-Match": new}).status_code == 202
    assert api.request("DELETE", VM, headers={"If-Match": new}).status_code == 200


def test_of_many_creators_one_wins_and_the_others_learn_who(api: Rig) -> None:
    def create(number: int) -> requests.Response:
        with api.new_session() as session:
            return session.put(
                api.url(VM),
                json={"labels": {"by": str(number)}, "spec": SPEC},
                headers={"If-None-Match": "*"},
                timeout=30,
            )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))
    (winner,) = [answer for answer in answers if answer.status_code == 201]
    for answer in answers:
        if answer is not winner:
            assert (answer.status_code, answer.json()["code"]) == (412, "already_exists")
            assert answer.json()["existing"] == {
                "uid": winner.json()["uid"],
                "created_at": winner.json()["created_at"],
            }
    assert api.get(VM).json()["labels"] == winner.json()["labels"]


def test_of_many_updaters_with_one_etag_one_wins(api: Rig) -> None:
    etag = api.put(VM, {"spec": SPEC}).headers["ETag"]

    def update(number: int) -> int:
        with api.new_session() as session:
            return session.put(
                api.url(VM), json={"spec": {**SPEC, "vcpu": 2 + number}}, headers={"If-Match": etag}, timeout=30
            ).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(update, range(8))) == [200] + [412] * 7


# -- idempotency keys --------------------------------------------------------------------------------------------------


def test_a_create_that_is_repeated_after_a_lost_answer_is_the_same_object(api: Rig) -> None:
    headers = {"If-None-Match": "*", "Idempotency-Key": "create-web-1"}

    async def lose(proposals: int) -> None:
        api.replica.lose_outcomes = proposals

    api.run(lose(1))
    lost = api.put(VM, {"spec": SPEC}, headers=headers)
    assert (lost.status_code, lost.json()["code"]) == (503, "outcome_unknown")
    assert "same Idempotency-Key" in lost.json()["hint"]
    assert int(lost.headers["Retry-After"]) >= 1
    api.run(lose(0))
    again = api.put(VM, {"spec": SPEC}, headers=headers)
    assert (again.status_code, again.json()["changed"]) == (200, False)
    assert again.json()["uid"] == api.vm().meta.uid
    assert len(api.replica.state.microvms) == 1


def test_a_key_belongs_to_one_request(api: Rig) -> None:
    api.put(VM, {"spec": SPEC}, headers={"Idempotency-Key": "k1"})
    before = api.digest
    other = api.put(VM, {"spec": {**SPEC, "vcpu": 2}}, headers={"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert other.json()["errors"][0]["pointer"] == "/header/idempotency-key"
    assert api.digest == before


def test_a_key_is_forgotten_with_the_object_that_it_made(api: Rig) -> None:
    headers = {"Idempotency-Key": "k1", "If-None-Match": "*"}
    first = api.put(VM, {"spec": SPEC}, headers=headers).json()["uid"]
    api.delete(VM)
    second = api.put(VM, {"spec": SPEC}, headers=headers)
    assert second.status_code == 201
    assert second.json()["uid"] != first


def test_a_repeated_action_acts_once(api: Rig) -> None:
    api.with_host()
    api.active()
    for _ in range(2):
        answer = api.request("POST", VM + "/actions/restart", headers={"Idempotency-Key": "r1"})
        assert answer.status_code == 202
        assert answer.json()["operation"]["kind"] == "restart"
    assert api.vm().restart_seq == 1


# -- no leader ---------------------------------------------------------------------------------------------------------


def test_without_a_leader_nothing_is_guessed(api: Rig) -> None:
    api.put_vm()
    before = api.digest

    async def lose_leader() -> None:
        api.replica.leaderless = True

    api.run(lose_leader())
    for answer in (
        api.get(VM),
        api.get("/microvms"),
        api.put(VM, {"spec": SPEC}),
        api.put(VM + "?dry_run=true", {"spec": SPEC}),
        api.request("DELETE", VM),
        api.post("/apply", {"resources": []}),
        api.get("/watch"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "no_leader"), answer.url
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["retry_after_s"] > 0
        assert "repeat" in answer.json()["hint"]
    assert api.digest == before
    stale = api.get(VM, params={"consistency": "stale"})
    assert (stale.status_code, stale.json()["name"]) == (200, "web")
    ready = api.get("//readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert api.get("//healthz").status_code == 200
    cluster = api.get("/cluster").json()
    assert (cluster["log"]["role"], cluster["log"]["leader"], cluster["log"]["has_quorum"]) == (
        "candidate",
        None,
        False,
    )
