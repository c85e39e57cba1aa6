"""flintctl against the real API: what each command prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.builders import agent_connected, failure, observation, place, report, suspected
from unit.api.rig import SPEC, Rig, eventually

from controlplane.model.resources import ObservedPower
from controlplane.ports import Contact, NodeView

Cli = Callable[..., Any]


@pytest.fixture
def running(api: Rig) -> Rig:
    """A host, a namespace and the microVM demo/web, which runs."""
    api.with_host()
    api.active()
    return api


def test_list_shows_where_everything_runs(cli: Cli, running: Rig) -> None:
    running.put_vm("waiting")
    answer = cli("vm", "list")
    assert answer.code == 0
    header, first, second = answer.out.splitlines()
    assert header.split()[:6] == ["NAMESPACE", "NAME", "PHASE", "POWER", "READY", "HOST"]
    assert first.split()[:6] == ["demo", "waiting", "pending", "(running)", "no", "-"]
    assert second.split()[:6] == ["demo", "web", "active", "running", "yes", "h1"]


def test_wide_adds_columns_and_json_gives_the_resource(cli: Cli, running: Rig) -> None:
    uid = running.vm().meta.uid
    assert uid not in cli("microvm", "list").out
    assert uid in cli("microvm", "list", "-o", "wide").out
    document = json.loads(cli("vm", "list", "-n", "demo", "-o", "json").out)
    assert [item["uid"] for item in document["items"]] == [uid]
    assert document["revision"] == running.replica.state.revision
    assert yaml.safe_load(cli("vm", "show", "demo/web", "-o", "yaml").out)["uid"] == uid


def test_empty_list_leaves_standard_output_empty(cli: Cli, api: Rig) -> None:
    answer = cli("host", "list")
    assert (answer.code, answer.out, answer.err) == (0, "", "No hosts found.\n")


def test_long_lists_are_read_page_by_page(cli: Cli, api: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.cli.commands.resources.PAGE", 2)
    api.with_host()
    for number in range(5):
        api.put_vm(f"vm{number}")
    assert len(cli("vm", "list", "-A").out.splitlines()) == 6


def test_list_filters(cli: Cli, running: Rig) -> None:
    running.put("/namespaces/demo/microvms/tagged", {"labels": {"app": "x"}, "spec": SPEC})
    assert [line.split()[1] for line in cli("vm", "list", "-l", "app=x").out.splitlines()[1:]] == ["tagged"]
    assert [line.split()[1] for line in cli("vm", "list", "--host", "h1").out.splitlines()[1:]] == ["web"]


def test_show_tells_intent_observation_conditions_and_drift(cli: Cli, running: Rig) -> None:
    running.report(power=ObservedPower.STOPPED, cause="process exited (signal 9)")
    shown = cli("vm", "show", "web", "-n", "demo").out
    for text in ("MicroVM demo/web", "kernel.image", "demo/kernel:6.1", "Conditions", "Running", "power_state"):
        assert text in shown
    assert "/spec/power_state" in shown
    assert "process exited (signal 9)" in shown


def test_namespace_comes_from_the_environment(cli: Cli, running: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("vm", "show", "web").code == 1
    monkeypatch.setenv("FLINTLOCK_NAMESPACE", "demo")
    assert cli("vm", "show", "web").code == 0


def test_why_lists_the_bids(cli: Cli, running: Rig) -> None:
    shown = cli("vm", "why", "demo/web").out
    assert "demo/web runs on h1" in shown
    assert "HOST" in shown
    running.put_vm("other")
    assert "waits for its first placement" in cli("vm", "why", "demo/other").out


def test_console_prints_everything_and_from_the_end(cli: Cli, running: Rig) -> None:
    running.agents.consoles[running.vm().meta.uid] = b"first\nhello from web\n"
    assert cli("vm", "console", "demo/web").out == "first\nhello from web\n"
    assert cli("vm", "console", "demo/web", "--offset=-4").out == "web\n"


def test_console_of_an_unreachable_host_says_so(cli: Cli, running: Rig) -> None:
    answer = cli("vm", "console", "demo/web")
    assert answer.code == 1
    assert "host_unreachable" in answer.err


def test_verb_waits_until_the_host_confirms(cli: Cli, running: Rig) -> None:
    def host() -> None:
        eventually(lambda: running.vm().spec.power_state == "stopped", "the intent is stopped")
        running.report(power=ObservedPower.STOPPED, ready=False)

    agent = threading.Thread(target=host)
    agent.start()
    answer = cli("vm", "stop", "demo/web")
    agent.join()
    assert (answer.code, answer.out) == (0, "microVM demo/web: stopped\n")


def test_verb_without_waiting(cli: Cli, running: Rig) -> None:
    answer = cli("vm", "pause", "demo/web", "--no-wait")
    assert answer.code == 0
    assert answer.out.startswith("microVM demo/web: pause accepted (operation ")


def test_delete_waits_for_the_confirmation(cli: Cli, running: Rig) -> None:
    def host() -> None:
        eventually(lambda: running.vm().meta.deletion_requested_at is not None, "the tombstone")
        running.confirm_destroyed()

    agent = threading.Thread(target=host)
    agent.start()
    answer = cli("vm", "delete", "demo/web")
    agent.join()
    assert (answer.code, answer.out) == (0, "microVM demo/web: deleted\n")
    assert running.replica.state.microvm("demo", "web") is None


def test_deleting_what_is_not_there_is_an_error(cli: Cli, running: Rig) -> None:
    answer = cli("vm", "delete", "demo/none")
    assert (answer.code, answer.out) == (1, "microVM demo/none: not found\n")
    assert "1 of 1 did not exist" in answer.err


def test_hosts_are_admitted_and_cordoned(cli: Cli, api: Rig) -> None:
    api.do(agent_connected("h9"))
    assert "not admitted" in cli("host", "list").out
    assert cli("host", "admit", "h9", "--set", "rack=b").code == 0
    assert api.replica.state.hosts["h9"].meta.labels == {"rack": "b"}
    assert "admitted already" in cli("host", "admit", "h9").err
    assert cli("host", "cordon", "h9").out == "host h9: cordoned\n"
    assert api.replica.state.hosts["h9"].spec.schedulable is False
    assert api.replica.state.hosts["h9"].meta.labels == {"rack": "b"}
    assert cli("host", "uncordon", "h9").code == 0
    assert cli("host", "uncordon", "h9").out == "host h9: uncordoned already\n"


def test_several_hosts_are_named_at_once_and_a_mistyped_name_changes_nothing(cli: Cli, api: Rig) -> None:
    for name in ("h8", "h9"):
        api.do(agent_connected(name))
    assert cli("host", "admit", "h8", "h9", "--set", "rack=b").out == "host h8: admitted\nhost h9: admitted\n"
    assert "h8 is admitted already" in cli("host", "admit", "h7", "h8").err
    assert "h7" not in api.replica.state.hosts
    assert cli("host", "cordon", "h8", "h9", "h6").code == 1
    assert all(api.replica.state.hosts[name].spec.schedulable for name in ("h8", "h9"))
    assert cli("host", "cordon", "h8", "h9").out == "host h8: cordoned\nhost h9: cordoned\n"


def test_a_host_that_is_heard_is_seen_now_however_old_its_session_is(cli: Cli, running: Rig) -> None:
    def last_seen() -> str:
        header, row = cli("host", "list").out.splitlines()
        return row[header.index("LAST-SEEN") :].split()[0]

    assert last_seen() == "now"
    running.do(suspected("h1"))
    assert last_seen().endswith("s")


def test_cluster_status(cli: Cli, running: Rig) -> None:
    shown = cli("cluster", "status").out
    assert "State hash:" in shown
    assert running.digest in shown
    assert json.loads(cli("cluster", "status", "-o", "json").out)["revision"] == running.replica.state.revision


def test_cluster_status_shows_what_each_node_believes(cli: Cli, running: Rig) -> None:
    alone = Contact(
        node="n3", role="candidate", term=4, leader=None, since_s=12, age_s=12, misses=("n1", "n2"), majority=2
    )
    led = replace(alone, node="n1", role="leader", leader="n1", since_s=80, hears=("n2",), misses=("n3",))
    running.agents.views_of = {
        "n1": NodeView(contact=led, revision=9, waits_s=7.0),
        "n2": "it cannot be reached",
        "n3": NodeView(contact=alone, revision=8),
    }
    running.log.changes = {"incarnation": 2}
    shown = cli("cluster", "status").out
    assert "NODES DISAGREE: n3 has had no leader for 12 s and hears nobody, while n1 go on with n1" in shown
    assert "RESTORED: the cluster was restored: it waits until" in shown
    lines = [line.split() for line in shown.splitlines()[-3:]]
    assert lines[0] == ["n1", "n1", "4", "80", "s", "n2", "n3", "9"]
    assert " ".join(lines[1]).startswith("n2 not asked: it cannot be reached")
    assert lines[2] == ["n3", "none", "4", "12", "s", "nobody", "n1,", "n2", "8"]


def test_watch_goes_on_at_another_node_when_one_has_no_leader(cli: Cli, running: Rig) -> None:
    async def lose() -> None:
        running.replica.leaderless = True
        asyncio.get_running_loop().call_later(1.0, setattr, running.replica, "leaderless", False)

    running.run(lose())
    answer = cli("watch", "--from", "0", "--kind", "MicroVM", "--limit", "1")
    assert answer.code == 0
    assert "no leader is known" in answer.err
    assert "trying another node" in answer.err


def test_watch_prints_changes_and_resumes(cli: Cli, running: Rig) -> None:
    lines = cli("watch", "--from", "0", "--kind", "MicroVM", "--limit", "2").out.splitlines()
    assert [line.split()[1:4] for line in lines] == [
        ["added", "MicroVM", "demo/web"],
        ["modified", "MicroVM", "demo/web"],
    ]
    events = [json.loads(line) for line in cli("watch", "--from", "0", "--limit", "3", "-o", "json").out.splitlines()]
    assert events[0]["event"] == "added"
    assert [event["revision"] for event in events] == sorted(event["revision"] for event in events)


FLEET = """
kind: MicroVM
name: api
namespace: shop
labels: {app: api}
spec: {vcpu: 1, memory_in_mb: 128, kernel: {image: "demo/kernel:6.1"}}
---
kind: Namespace
name: shop
"""


def test_apply_creates_changes_and_leaves(cli: Cli, api: Rig, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(FLEET)
    dry = cli("apply", "-f", str(file), "--dry-run")
    assert dry.code == 0
    assert "+ MicroVM shop/api: created" in dry.out
    assert "shop" not in api.replica.state.namespaces
    assert "2 created" in cli("apply", "-f", str(file)).out
    assert "2 unchanged" in cli("apply", "-f", str(file)).out
    file.write_text(FLEET.replace("vcpu: 1", "vcpu: 2"))
    assert "/spec/vcpu: 1 -> 2 (restart)" in cli("apply", "-f", str(file), "--dry-run").out
    changed = cli("apply", "-f", str(file)).out
    assert "~ MicroVM shop/api: changed\n    /spec/vcpu: 1 -> 2\n" in changed
    assert "1 unchanged, 1 changed" in changed


def test_apply_reads_back_what_show_prints(cli: Cli, running: Rig, tmp_path: Path) -> None:
    (tmp_path / "vm.yaml").write_text(cli("vm", "show", "demo/web", "-o", "yaml").out)
    assert "1 unchanged" in cli("apply", "-f", "vm.yaml").out


def test_refused_resources_name_file_and_field(cli: Cli, api: Rig, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("vcpu: 1", "vcpu: 0"))
    digest = api.digest
    answer = cli("apply", "-f", "fleet.yaml", "--atomic")
    assert answer.code == 1
    said = answer.out + answer.err
    assert "fleet.yaml (document 1)" in said
    assert "/spec/vcpu" in said
    assert "greater than or equal to 1" in said
    assert api.digest == digest


def test_apply_waits_and_reports_a_failure(cli: Cli, running: Rig, tmp_path: Path) -> None:
    (tmp_path / "vm.yaml").write_text(FLEET)

    def host() -> None:
        eventually(lambda: running.replica.state.microvm("shop", "api") is not None, "the declaration")
        vm = running.vm("api", "shop")
        running.do(place(vm, "h1"))
        placed = running.vm("api", "shop")
        absent = {"power": ObservedPower.ABSENT, "ready": False, "generation": None}
        running.do(report(observation(placed, failure=failure(), **absent), host="h1"))

    agent = threading.Thread(target=host)
    agent.start()
    answer = cli("apply", "-f", "vm.yaml", "--wait")
    agent.join()
    assert answer.code == 1
    assert "MicroVM shop/api failed" in answer.err
    assert failure().message in answer.err


def test_delete_files_goes_from_microvms_to_namespaces(cli: Cli, api: Rig, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    assert cli("apply", "-f", "fleet.yaml").code == 0
    answer = cli("delete", "-f", "fleet.yaml", "--reason", "the trial is over")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("- MicroVM shop/api")
    assert lines[-1] == "- Namespace shop: deleted"
    assert not api.replica.state.microvms
    assert not api.replica.state.namespaces


def test_operations_and_policies(cli: Cli, running: Rig) -> None:
    listed = json.loads(cli("operation", "list", "-o", "json").out)["items"]
    assert "kind:" in cli("operation", "show", listed[0]["id"]).out
    assert cli("policy", "list").err == "No placement policies found.\n"
    assert cli("namespace", "show", "demo").out.startswith("Resource:")
