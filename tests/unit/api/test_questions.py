"""Actions, operations, why, console, drift, the cluster, health and the schema."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing
from support.builders import report
from unit.api.rig import SPEC, TOKEN, Rig, eventually

from controlplane.model.commands import AgentLost, MarkUnplaced
from controlplane.model.resources import Bid, ObservedPower, Unmanaged
from controlplane.ports import BackupStatus, DriverError, HostUnreachableError

VM = "/namespaces/demo/microvms/web"


@pytest.mark.parametrize(
    ("action", "start", "power", "kind"),
    [
        ("stop", "running", "stopped", "update"),
        ("pause", "running", "paused", "update"),
        ("start", "stopped", "running", "update"),
        ("resume", "paused", "running", "update"),
        ("repair", "running", "running", "repair"),
        ("restart", "running", "running", "restart"),
    ],
)
def test_actions(api: Rig, action: str, start: str, power: str, kind: str) -> None:
    api.with_host()
    api.active(power_state=start)
    answer = api.post(f"{VM}/actions/{action}")
    assert answer.status_code == 202
    operation = answer.json()["operation"]
    assert (operation["kind"], operation["phase"], operation["target"]["name"]) == (kind, "running", "web")
    assert api.get(f"/operations/{operation['id']}").json() == operation
    assert api.get(VM).json()["spec"]["power_state"] == power
    assert api.get(VM).json()["status"]["operation"] == operation["id"]
    api.report()
    ended = api.get(f"/operations/{operation['id']}").json()
    assert ended["phase"] == "succeeded"
    assert ended["finished_at"] is not None


def test_an_action_that_changes_nothing_starts_nothing(api: Rig) -> None:
    api.with_host()
    api.active()
    before = api.digest
    answer = api.post(f"{VM}/actions/start")
    assert (answer.status_code, answer.json()) == (202, {"operation": None})
    assert api.digest == before


def test_operations_are_listed_by_page(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    for name in ("a", "b", "c"):
        api.put_vm(name)
    first = api.get("/operations", params={"limit": 2}).json()
    rest = api.get("/operations", params={"limit": 2, "continue": first["continue"]}).json()
    assert [item["target"]["name"] for item in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert api.get("/operations", params={"namespace": "other"}).json()["items"] == []
    missing = api.get("/operations/op-000000009999-000")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


def test_why_it_is_where_it_is(api: Rig) -> None:
    api.with_host()
    api.put_vm()
    uid = api.vm().meta.uid
    api.do(
        MarkUnplaced(uid=uid, generation=1, reason="NoHostFits", message="no", bids=[Bid(host="h1", refused="busy")])
    )
    why = api.get(f"{VM}/why").json()
    assert why["microvm"] == {"namespace": "demo", "name": "web", "uid": uid, "phase": "pending"}
    assert why["decision"] is None
    assert (why["unplaced"]["reason"], why["unplaced"]["bids"][0]["refused"]) == ("NoHostFits", "busy")
    api.place()
    why = api.get(f"{VM}/why").json()
    assert why["unplaced"] is None
    assert (why["decision"]["host"], why["decision"]["epoch"], why["decision"]["score"]) == ("h1", 1, 0.5)
    assert why["decision"]["bids"] == [{"host": "h1", "score": 0.5, "parts": {"load": 0.5}, "refused": None}]


# -- console -----------------------------------------------------------------------------------------------------------


def test_console_is_read_piece_by_piece(api: Rig) -> None:
    api.with_host()
    api.active()
    api.agents.consoles[api.vm().meta.uid] = b"Linux version 6.1\nready \xff\n"
    seen, offset = b"", 0
    while True:
        answer = api.get(f"{VM}/console", params={"offset": offset, "limit": 10})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        if not answer.content:
            break
        seen, offset = seen + answer.content, int(answer.headers["Flintlock-Console-Offset"])
    assert seen == b"Linux version 6.1\nready \xff\n"
    assert api.get(f"{VM}/console", params={"offset": -8}).content == b"ready \xff\n"


def test_console_of_what_cannot_be_asked(api: Rig) -> None:
    api.with_host()
    api.put_vm()
    pending = api.get(f"{VM}/console")
    assert (pending.status_code, pending.json()["code"]) == (409, "not_placed")
    api.place()
    api.report()
    silent = api.get(f"{VM}/console")
    assert (silent.status_code, silent.json()["code"]) == (503, "host_unreachable")
    assert "h1" in silent.json()["detail"]
    api.agents.error = DriverError("ConsoleGone", "the file is not there")
    broken = api.get(f"{VM}/console")
    assert (broken.status_code, broken.json()["code"]) == (502, "driver_error")
    assert "ConsoleGone" in broken.json()["detail"]
    api.agents.error = HostUnreachableError("no session")
    assert "no session" in api.get(f"{VM}/console").json()["detail"]


# -- drift -------------------------------------------------------------------------------------------------------------


def test_drift_names_class_and_field(api: Rig) -> None:
    api.with_host()
    for name in ("good", "killed"):
        api.active(name)
    api.put_vm("waiting")
    api.report("killed", power=ObservedPower.STOPPED, cause="process exited (signal 9)")
    api.do(report(unmanaged=[Unmanaged(native_id="/run/x", driver="simulated", since=1_000)]))
    answer = api.get("/drift").json()
    assert answer["summary"] == {"in_sync": 1, "progressing": 1, "drifted": 1, "unmanaged": 1, "unreachable": 0}
    by_name = {item["name"]: item for item in answer["items"]}
    assert {name: item["class"] for name, item in by_name.items()} == {
        "good": "in_sync",
        "killed": "drifted",
        "waiting": "progressing",
        None: "unmanaged",
    }
    (field,) = by_name["killed"]["fields"]
    assert (field["pointer"], field["desired"], field["observed"], field["cause"]) == (
        "/spec/power_state",
        "running",
        "stopped",
        "process exited (signal 9)",
    )
    assert by_name[None]["host"] == "h1"

    def names(**params: Any) -> list[str | None]:
        return [item["name"] for item in api.get("/drift", params=params).json()["items"]]

    assert names(namespace="demo") == ["good", "killed", "waiting"]
    assert names(namespace="other") == []
    assert names(**{"class": "drifted"}) == ["killed"]
    assert names(**{"class": ["drifted", "progressing"]}) == ["killed", "waiting"]


def test_a_silent_host_is_unreachable_and_not_drift(api: Rig) -> None:
    api.with_host()
    api.active()
    api.do(AgentLost(host="h1", session="session-h1", reason="silent"))
    (vm,) = api.get("/drift").json()["items"]
    assert (vm["name"], vm["class"]) == ("web", "unreachable")
    (host,) = api.get("/drift", params={"kind": "Host"}).json()["items"]
    assert (host["kind"], host["name"], host["class"]) == ("Host", "h1", "unreachable")


# -- the cluster -------------------------------------------------------------------------------------------------------


def test_cluster(api: Rig) -> None:
    api.with_host()
    api.active()
    api.put_vm("waiting")
    api.agents.scores["h1"] = 0.1
    found = api.get("/cluster").json()
    assert (found["cluster_id"], found["node"], found["version"]) == ("test", "n1", "0.1.0")
    assert found["revision"] == api.replica.state.revision
    assert found["state_hash"] == api.digest
    assert found["hosts"] == {"ready": 1}
    assert found["microvms"] == {"running": 1, "pending": 1}
    (node,) = found["nodes"]
    assert node == {
        "node": "n1",
        "address": "127.0.0.1:1",
        "reachable": True,
        "role": "leader",
        "agents": 1,
        "belief": None,
        "not_asked": "its address is not known",
    }


def test_health(api: Rig) -> None:
    assert api.get("//healthz").json() == {"status": "ok"}
    assert api.get("//readyz").json() == {"status": "ok"}


def test_schema_of_specs(api: Rig) -> None:
    found = api.get("/schema/microvm").json()
    assert set(found["schema"]["properties"]) == set(found["effects"])
    assert (found["effects"]["vcpu"], found["effects"]["root_volume"]) == ("restart", "replace")
    assert found["schema"]["properties"]["vcpu"]["maximum"] == 64


# -- every answer ------------------------------------------------------------------------------------------------------


def test_every_answer_carries_its_revision_and_request_id(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    for path in ("/namespaces", "/nowhere", "//healthz", "/cluster"):
        answer = api.get(path, headers={"X-Request-Id": "req-1"})
        assert answer.headers["Flintlock-Revision"] == "1"
        assert answer.headers["X-Request-Id"] == "req-1"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in answer.headers
    assert api.get("/hosts", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"] != "a b"


def test_the_access_log_says_who_did_what_and_nothing_of_what_was_in_it(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    body = {"spec": {**SPEC, "metadata": {"user-data": "hunter2"}}}
    with structlog.testing.capture_logs() as lines:
        api.put(VM, body, params={"dry_run": "false"}, headers={"X-Request-Id": "req-7"})
        api.get("/cluster", headers={"Authorization": "Bearer hunter2"})
        # The line of the request before these may come late: it is written after its answer is sent.
        paths = ["/api/v2" + VM, "/api/v2/cluster"]
        eventually(lambda: {*paths} <= {line.get("path") for line in lines}, "both are logged")
    first, second = (next(line for line in lines if line.get("path") == path) for path in paths)
    assert (first["method"], first["path"], first["status"], first["actor"]) == ("PUT", "/api/v2" + VM, 201, "alice")
    assert first["request_id"] == "req-7"
    assert first["duration_ms"] >= 0
    assert (second["status"], second["actor"]) == (401, None)
    assert "hunter2" not in str(lines)
    assert "dry_run" not in str(lines)
    assert TOKEN not in str(lines)


def test_an_unexpected_error_is_a_problem_with_an_id_and_no_traceback(api: Rig) -> None:
    api.with_host()
    api.active()
    api.agents.error = RuntimeError("secret path /etc/x")
    with structlog.testing.capture_logs() as lines:
        answer = api.get(f"{VM}/console")
    (failed,) = [line for line in lines if line["event"] == "request_failed"]
    assert failed["request_id"] == answer.headers["X-Request-Id"]
    assert "RuntimeError: secret path /etc/x" in failed["traceback"]
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "internal")
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert "secret" not in answer.text
    assert api.get(VM).status_code == 200


def test_what_is_read_back_can_be_declared_again(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    full = {
        **SPEC,
        "initrd": {"image": "demo/initrd:1", "filename": "initrd.img"},
        "root_volume": {"container_source": "demo/root:1", "size_in_mb": 512},
        "additional_volumes": {"data": {"kind": "local", "size_in_mb": 10, "mount_point": "/data"}},
        "interfaces": {"eth1": {"address": {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "nameservers": ["::1"]}}},
        "metadata": {"user-data": "#cloud-config\n"},
        "placement": {"required_host_labels": {"zone": "a"}, "spread": {"by": "zone", "max_per": 2}},
    }
    created = api.put(VM, {"spec": full}).json()
    again = api.put(VM, {"spec": created["spec"]}).json()
    assert again["changed"] is False
    assert again["spec"] == created["spec"]


def test_cluster_tells_of_backups(api: Rig) -> None:
    assert api.get("/cluster").json()["backup"] is None
    api.backup = BackupStatus(
        location="/backups",
        every_s=3600,
        last_saved_at_ms=1_769_860_800_000,
        last_index=7,
        error="the disk is full",
        error_at_ms=1_769_860_900_000,
        overdue=True,
    )
    found = api.get("/cluster").json()["backup"]
    assert found == {
        "location": "/backups",
        "every_s": 3600.0,
        "last_saved_at": "2026-01-31T12:00:00.000Z",
        "last_index": 7,
        "error": "the disk is full",
        "error_at": "2026-01-31T12:01:40.000Z",
        "overdue": True,
    }
