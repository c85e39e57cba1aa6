"""Lost hosts, as a client sees them: their phases, an operator's word, the breaker, and what is restarted elsewhere."""

from __future__ import annotations

import pytest
from support.builders import agent_connected, detached, fenced, place, report, resurrect, session_of, suspected
from unit.api.rig import Rig

from controlplane.model.commands import Destroyed

MOVES = {"on_host_failure": "restart_elsewhere"}
VM = "/namespaces/demo/microvms/web"
CONFIRM = "/hosts/h1/actions/confirm-fenced"


@pytest.fixture
def fleet(api: Rig) -> Rig:
    """Two hosts; on the first runs what may move."""
    api.with_host("h1")
    api.with_host("h2")
    api.active(recovery=MOVES)
    return api


def lose(api: Rig, host: str = "h1") -> None:
    api.do(suspected(host))
    api.do(detached(host))


def test_what_was_restarted_elsewhere_tells_and_is_no_drift(fleet: Rig) -> None:
    assert fleet.get(VM).json()["status"]["on_detach"] == "pause"
    lose(fleet)
    assert fleet.get(VM).json()["status"]["drift"]["class"] == "unreachable"
    assert fleet.get(f"{VM}/why").json()["held"] == "host h1 is detached: it is not fenced yet"
    fleet.do(fenced())
    assert fleet.get(f"{VM}/why").json()["held"] == ""
    etag = fleet.get(VM).headers["ETag"]
    fleet.do(resurrect(fleet.vm()))
    status = fleet.get(VM).json()["status"]
    assert (status["phase"], status["host"], status["epoch"], status["on_detach"]) == ("pending", None, 1, None)
    assert (status["resurrection"]["host"], status["resurrection"]["epoch"]) == ("h1", 1)
    assert (status["drift"], fleet.get(VM).headers["ETag"]) == ({"class": "progressing", "fields": []}, etag)
    (order,) = fleet.get("/hosts/h1").json()["status"]["stale"]
    assert (order["uid"], order["epoch"]) == (fleet.vm().meta.uid, 1)
    assert order["deletion"]["reason"].startswith("given up here: ")
    fleet.do(place(fleet.vm(), "h2"))
    fleet.report()
    status = fleet.get(VM).json()["status"]
    assert (status["host"], status["epoch"], status["drift"]["class"]) == ("h2", 2, "in_sync")
    assert fleet.get(f"{VM}/why").json()["resurrection"]["host"] == "h1"


def test_a_host_that_is_back_destroys_what_was_given_up_and_is_ready(fleet: Rig) -> None:
    lose(fleet)
    fleet.do(fenced())
    vm = fleet.vm()
    fleet.do(resurrect(vm))
    fleet.do(agent_connected("h1", session="again"))
    assert fleet.get("/hosts/h1").json()["status"]["phase"] == "rejoining"
    gone = [Destroyed(uid=vm.meta.uid, epoch=1)]
    fleet.do(report(session="again", destroyed=gone, rejoined=True))
    status = fleet.get("/hosts/h1").json()["status"]
    assert (status["phase"], status["stale"], status["reason"]) == ("ready", [], "")


def test_an_operators_word_fences_a_host(fleet: Rig) -> None:
    lose(fleet)
    status = fleet.post(CONFIRM).json()["status"]
    assert (status["phase"], status["confirmed_by"]) == ("fenced", "alice")
    assert fleet.post(CONFIRM).status_code == 200
    connected = {each["type"]: each for each in status["conditions"]}["Connected"]
    assert connected["status"] == "false"
    assert "alice confirmed that it is off" in connected["message"]


def test_an_operators_word_is_refused_where_it_cannot_be_true(fleet: Rig) -> None:
    missing = fleet.post("/hosts/h9/actions/confirm-fenced")
    assert (missing.status_code, missing.json()["errors"][0]["pointer"]) == (404, "/name")
    ready = fleet.post(CONFIRM)
    assert (ready.status_code, ready.json()["code"]) == (409, "host_not_lost")
    assert "h1 is ready" in ready.json()["detail"]
    lose(fleet)
    other = fleet.post(CONFIRM, headers={"If-Match": '"1"'})
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (412, "/header/if-match")
    etag = fleet.get("/hosts/h1").headers["ETag"]
    assert fleet.post(CONFIRM, headers={"If-Match": etag, "Idempotency-Key": "k"}).status_code == 200
    reused = fleet.delete("/hosts/h2", headers={"Idempotency-Key": "k"})
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


def test_many_lost_hosts_open_the_breaker_until_an_operator_speaks(fleet: Rig) -> None:
    closed = fleet.get("/cluster").json()["failover"]
    assert closed == {"breaker_open": False, "lost": 0, "of": 2, "message": "", "override": None}
    for host in ("h1", "h2"):
        lose(fleet, host)
        fleet.do(fenced(host))
    found = fleet.get("/cluster").json()
    assert (found["hosts"], found["failover"]["breaker_open"], found["failover"]["lost"]) == ({"fenced": 2}, True, 2)
    assert "2 of 2 hosts are lost" in found["failover"]["message"]
    assert fleet.get(f"{VM}/why").json()["held"] == found["failover"]["message"]
    fleet.post("/hosts/h2/actions/confirm-fenced")
    assert fleet.get("/cluster").json()["failover"]["breaker_open"] is True, "nobody said anything of h1"
    fleet.post(CONFIRM)
    assert fleet.get("/cluster").json()["failover"]["breaker_open"] is False
    assert fleet.get(f"{VM}/why").json()["held"] == ""


def test_an_operator_overrides_the_breaker_for_a_time(fleet: Rig) -> None:
    quiet = fleet.get("/failover").json()
    assert (quiet["breaker"]["open"], quiet["override"], quiet["next"], quiet["held"]) == (False, None, [], [])
    missing = fleet.delete("/failover/override")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    for host in ("h1", "h2"):
        lose(fleet, host)
        fleet.do(fenced(host))
    stopped = fleet.get("/failover").json()
    assert (stopped["breaker"]["open"], stopped["breaker"]["stops"]) == (True, True)
    assert (stopped["breaker"]["lost"], stopped["breaker"]["of"], stopped["breaker"]["hosts"]) == (2, 2, ["h1", "h2"])
    (kept,) = stopped["held"]
    assert (kept["name"], kept["host"], kept["held"]) == ("web", "h1", stopped["breaker"]["message"])
    assert stopped["held_in_all"] == 1
    done = fleet.put("/failover/override", {"for_s": 600, "reason": " both burnt "})
    assert done.status_code == 200, done.text
    body = done.json()
    assert (body["override"]["actor"], body["override"]["reason"]) == ("alice", "both burnt")
    assert body["override"]["until"] > body["override"]["at"]
    assert (body["breaker"]["open"], body["breaker"]["stops"], body["held"]) == (True, False, [])
    assert [each["name"] for each in body["next"]] == ["web"]
    assert fleet.get("/cluster").json()["failover"]["override"] == body["override"]
    fleet.do(resurrect(fleet.vm()))
    assert fleet.delete("/failover/override").json()["override"] is None
    assert fleet.get("/cluster").json()["failover"]["breaker_open"] is True


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"for_s": 0, "reason": "x"}, "/for_s"),
        ({"for_s": 24 * 3600 + 1, "reason": "x"}, "/for_s"),
        ({"for_s": 60}, "/reason"),
        ({"for_s": 60, "reason": "  "}, "/reason"),
        ({"for_s": 60, "reason": "x" * 501}, "/reason"),
        ({"for_s": 60, "reason": "x", "host": "h1"}, "/host"),
    ],
)
def test_an_override_that_says_too_little_is_refused(fleet: Rig, body: dict[str, object], pointer: str) -> None:
    refused = fleet.put("/failover/override", body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert fleet.get("/failover").json()["override"] is None


def test_what_was_seen_on_a_host_that_is_lost_ends_no_wait(fleet: Rig) -> None:
    assert fleet.get(VM, params={"wait_for": "running"}).headers["Flintlock-Wait"] == "done"
    fleet.do(suspected())
    asked = {"wait_for": "running", "wait_s": "0.1"}
    assert fleet.get(VM, params=asked).headers["Flintlock-Wait"] == "timeout"
    assert session_of("h1") == fleet.replica.state.hosts["h1"].session


def test_a_host_with_orders_is_not_deleted_before_it_is_known_to_be_off(fleet: Rig) -> None:
    lose(fleet)
    fleet.do(fenced())
    fleet.do(resurrect(fleet.vm()))
    refused = fleet.delete("/hosts/h1")
    assert (refused.status_code, refused.json()["code"]) == (409, "host_in_use")
    assert "flintctl host confirm-fenced h1" in refused.json()["detail"]
    fleet.post(CONFIRM)
    assert fleet.delete("/hosts/h1").status_code == 200
    assert fleet.get("/hosts/h1").status_code == 404
