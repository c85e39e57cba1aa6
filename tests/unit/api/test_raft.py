"""The log through the API: its status with everything an operator needs, and its members."""

from __future__ import annotations

from typing import Any

import pytest
from unit.api.rig import Rig

from controlplane.ports import Divergence, Latency, PeerStatus

N2 = {"node": "n2", "address": "127.0.0.1:7102", "api": "127.0.0.1:7302", "gateway": "127.0.0.1:7202"}


def test_status_has_every_figure(api: Rig) -> None:
    api.log.changes = {
        "fsync_latency": Latency(samples=9, p50_ms=0.1234, p99_ms=1.5, max_ms=2.0),
        "snapshot_age_s": 12.5,
        "log_entries": 7,
        "fsync": "always",
        "peers": (
            PeerStatus(
                node="n2",
                address="127.0.0.1:7102",
                connected=True,
                match_index=3,
                lag_entries=4,
                last_contact_ms=20,
                learner=True,
                machine_version=2,
            ),
        ),
    }
    found = api.get("/raft").json()
    assert found["fsync_latency"] == {"samples": 9, "p50_ms": 0.123, "p99_ms": 1.5, "max_ms": 2.0}
    assert (found["snapshot_age_s"], found["log_entries"], found["incarnation"]) == (12.5, 7, 1)
    assert found["peers"] == [
        {
            "node": "n2",
            "address": "127.0.0.1:7102",
            "connected": True,
            "learner": True,
            "match_index": 3,
            "lag_entries": 4,
            "last_contact_ms": 20,
            "machine_version": 2,
        }
    ]
    assert found["members"] == [
        {"node": "n1", "address": "127.0.0.1:7101", "role": "voter", "api": None, "gateway": None}
    ]
    assert found["concerns"] == []
    assert api.get("/cluster").json()["log"] == found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fsync": "never"}, "fsync: never: a power failure loses acknowledged writes"),
        ({"has_quorum": False}, "no quorum: nothing can be written"),
        ({"has_quorum": False, "role": "follower"}, "no live leader is known"),
        ({"role": "starting"}, "the log is starting"),
        ({"node": "n9"}, "not a member of the cluster"),
        ({"configuration_index": 99}, "a change of the members is not committed yet"),
        ({"divergences": (Divergence("n2", 70, "aa", "bb"),)}, "diverged: the state of n2 at 70"),
    ],
)
def test_concerns_say_what_is_wrong_here(api: Rig, changes: dict[str, Any], said: str) -> None:
    api.log.changes = {"fsync": "always", **changes}
    assert any(each.startswith(said) for each in api.get("/raft").json()["concerns"])


def test_add_promote_remove(api: Rig) -> None:
    added = api.post("/raft/members", {**N2, "role": "learner"})
    assert added.status_code == 200
    assert [(each["node"], each["role"]) for each in added.json()["items"]] == [("n1", "voter"), ("n2", "learner")]
    assert added.json()["items"][1] == {**N2, "role": "learner"}
    promoted = api.post("/raft/members/n2/actions/promote").json()
    assert [each["role"] for each in promoted["items"]] == ["voter", "voter"]
    removed = api.delete("/raft/members/n2")
    assert [each["node"] for each in removed.json()["items"]] == ["n1"]
    assert api.get("/raft/members").json() == removed.json()


def test_a_refusal_changes_nothing_and_says_what_to_do(api: Rig) -> None:
    api.post("/raft/members", {**N2, "role": "learner"})
    api.delete("/raft/members/n2")
    refused = api.post("/raft/members", N2)
    assert (refused.status_code, refused.json()["code"]) == (409, "membership_refused")
    assert "a removed id is never accepted again" in refused.json()["detail"]
    assert "flintctl raft status" in refused.json()["hint"]
    only = api.delete("/raft/members/n1")
    assert (only.status_code, only.json()["code"]) == (409, "membership_refused")
    assert "the only voter" in only.json()["detail"]


def test_one_that_does_not_catch_up_stays_a_learner(api: Rig) -> None:
    api.members.slow = 1
    refused = api.post("/raft/members", N2, params={"timeout_s": 0.5})
    assert refused.status_code == 409
    assert "has 10 of 100 entries" in refused.json()["detail"]
    assert api.post("/raft/members", N2).json()["items"][1]["role"] == "voter"


def test_transfer(api: Rig) -> None:
    api.post("/raft/members", N2)
    assert api.post("/raft/actions/transfer-leadership", {"target": "n2"}).json() == {"leader": "n2"}
    assert api.post("/raft/actions/transfer-leadership", {}).json() == {"leader": "n1"}
    assert api.post("/raft/actions/transfer-leadership", {"target": "n7"}).status_code == 409


def test_without_a_leader(api: Rig) -> None:
    api.members.leaderless = True
    for answer in (api.post("/raft/members", N2), api.delete("/raft/members/n1")):
        assert (answer.status_code, answer.json()["code"]) == (503, "no_leader")
        assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", "/raft/members", {**N2, "node": "N2"}, "/node"),
        ("POST", "/raft/members", {**N2, "address": "10.0.0.1"}, "/address"),
        ("POST", "/raft/members", {**N2, "api": "x:0"}, "/api"),
        ("POST", "/raft/members", {**N2, "role": "leader"}, "/role"),
        ("POST", "/raft/members", {"node": "n2"}, "/address"),
        ("POST", "/raft/members", {**N2, "voter": True}, "/voter"),
        ("POST", "/raft/members?timeout_s=0", N2, "/query/timeout_s"),
        ("POST", "/raft/members?timeout=3", N2, "/query/timeout"),
        ("POST", "/raft/actions/transfer-leadership", {"target": 5}, "/target"),
        ("DELETE", "/raft/members/N2", None, "/node"),
    ],
)
def test_bad_input(api: Rig, method: str, path: str, body: Any, pointer: str) -> None:
    answer = api.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert pointer in {each["pointer"] for each in answer.json()["errors"]}
    assert len(api.members.configuration.members) == 1


def test_needs_a_token(api: Rig) -> None:
    for method, path in (("GET", "/raft"), ("POST", "/raft/members"), ("DELETE", "/raft/members/n1")):
        assert api.request(method, path, headers={"Authorization": "Bearer no"}).status_code == 401
