"""The parts of `flintctl dev`: plans, identities of processes, settings that the nodes accept, and honest errors."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane import settings
from controlplane.cli.dev import layout, leftovers, processes, setup, terraform
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.demo import Recorder
from controlplane.cli.dev.processes import ProcessId
from controlplane.cli.dev.progress import Progress
from controlplane.cli.errors import CliError

Cli = Callable[..., Any]


@pytest.fixture
def created(tmp_path: Path) -> layout.Layout:
    return setup.create(tmp_path / "c", nodes=3, hosts=2, driver="simulated", say=lambda _: None)


def test_every_process_accepts_its_settings(created: layout.Layout) -> None:
    nodes = [settings.load_node(created.settings(node.name), {}) for node in created.plan.nodes]
    assert [set(node.raft.peers) for node in nodes] == [{"n2", "n3"}, {"n1", "n3"}, {"n1", "n2"}]
    assert len({node.raft.listen for node in nodes} | {node.http.listen for node in nodes}) == 6
    for host in created.plan.hosts:
        agent = settings.load_agent(created.settings(host.name), {})
        assert set(agent.endpoints) == {"n1", "n2", "n3"}
        assert agent.state_dir == created.data(host.name)


def test_layout_is_read_back_and_secrets_are_private(created: layout.Layout) -> None:
    again = layout.load(created.directory)
    assert again is not None
    assert again.plan == created.plan
    assert (created.directory / ".gitignore").read_text() == "*\n"
    assert created.directory.stat().st_mode & 0o077 == 0
    assert created.token_file.stat().st_mode & 0o077 == 0
    assert created.token_file.read_text().strip() not in created.tokens_file.read_text()


def test_occupied_or_too_deep_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(CliError, match=r"is not empty, and holds no dev\.json"):
        setup.create(tmp_path, nodes=1, hosts=1, driver="simulated", say=lambda _: None)
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(CliError, match="too long for unix sockets"):
        setup.create(tmp_path / ("x" * 90), nodes=1, hosts=1, driver="simulated", say=lambda _: None)


def test_driver_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    with pytest.raises(CliError, match="--driver qemu: qemu-system-x86_64 is not installed"):
        setup.choose_driver("qemu", tmp_path / "images", said.append)
    choice = setup.choose_driver("auto", tmp_path / "images", said.append)
    assert (choice.driver, choice.reason) == ("simulated", "qemu-system-x86_64 is not installed")


def test_ports_that_are_in_use_are_not_chosen() -> None:
    ports = layout.free_ports(20)
    assert len(set(ports)) == 20
    with socket.socket() as listener:
        listener.bind((layout.LOOPBACK, ports[0]))
        assert ports[0] not in layout.free_ports(2000)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["up", "--hosts", "3"], "--hosts 3: the cluster in"),
        (["up", "--nodes", "1"], "--nodes 1: the cluster in"),
        (["up", "--driver", "qemu"], "has simulated"),
        (["logs", "h9"], "'h9' is not one of n1, n2, n3, h1, h2"),
        (["logs", "h1"], "h1 has written no log yet"),
    ],
)
def test_existing_cluster_is_not_changed(
    created: layout.Layout, bare: Cli, arguments: list[str], expected: str
) -> None:
    answer = bare("dev", *arguments, "--dir", str(created.directory))
    assert answer.code != 0
    assert expected in answer.err


@pytest.mark.parametrize("command", [["status"], ["env"], ["down"], ["logs", "n1"]])
def test_no_cluster(bare: Cli, command: list[str]) -> None:
    answer = bare("dev", *command)
    assert answer.code == 1
    assert "there is no cluster in .flintlock-dev" in answer.err


def test_env_and_status_of_a_cluster_that_is_down(created: layout.Layout, bare: Cli) -> None:
    exports = bare("dev", "env", "--dir", str(created.directory)).out
    shown = subprocess.run(
        ["sh", "-c", f'{exports}\nprintf %s "$FLINTLOCK_TOKEN"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout == created.token_file.read_text().strip()
    status = bare("dev", "status", "--dir", str(created.directory), "-o", "json")
    assert status.code == 1
    assert [member["pid"] for member in json.loads(status.out)["members"]] == [None] * 5


def test_damaged_plan_is_named(created: layout.Layout, bare: Cli) -> None:
    (created.directory / "dev.json").write_text('{"version": 2}')
    answer = bare("dev", "status", "--dir", str(created.directory))
    assert answer.code == 1
    assert "dev.json: /version" in answer.err


# -- processes ---------------------------------------------------------------------------------------------------------

FAMILY = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[ProcessId]:
    process = processes.start(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
        log=tmp_path / "logs" / "x.log",
        run_file=tmp_path / "run" / "x.json",
        environ=dict(os.environ),
    )
    yield process
    processes.kill([process])


def test_started_process_is_known_by_its_file_until_it_ends(started: ProcessId, tmp_path: Path) -> None:
    run_file = tmp_path / "run" / "x.json"
    assert processes.recorded(run_file) == started
    assert processes.session_of(started) == [started]
    assert processes.stop([started], grace_s=10) == []
    assert not started.alive
    assert processes.recorded(run_file) is None
    assert not started.signal(signal.SIGKILL)


def test_reused_pid_is_neither_alive_nor_signalled(started: ProcessId, tmp_path: Path) -> None:
    other = ProcessId(pid=started.pid, start_time=started.start_time + 1, boot_id=started.boot_id)
    assert not other.alive
    assert not other.signal(signal.SIGKILL)
    earlier_boot = ProcessId(pid=started.pid, start_time=started.start_time, boot_id="another")
    assert not earlier_boot.signal(signal.SIGKILL)
    assert started.alive


def test_stubborn_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    log = tmp_path / "x.log"
    process = processes.start(
        [sys.executable, "-c", code], log=log, run_file=tmp_path / "x.json", environ=dict(os.environ)
    )
    wait_until(lambda: "deaf" in log.read_text())
    assert processes.stop([process], grace_s=0.3) == [process]
    assert not process.alive


def test_children_are_found_by_their_session(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAMILY]
    leader = processes.start(command, log=tmp_path / "l", run_file=tmp_path / "r", environ=dict(os.environ))
    wait_until(lambda: len(processes.session_of(leader)) == 2)
    family = processes.session_of(leader)
    assert family[0] == leader
    assert processes.kill(family)


def test_only_processes_with_the_clusters_mark_are_leftovers(created: layout.Layout) -> None:
    mark = f"flintlock/h1/{created.plan.cluster_id}/01UID/1/demo/web"
    other = "flintlock/h1/dev-other/01UID/1/demo/web"
    children = [
        subprocess.Popen([sys.executable, "-c", "input()", name], stdin=subprocess.PIPE) for name in (mark, other)
    ]
    try:
        wait_until(lambda: len(leftovers.vm_processes(created)) == 1)
        assert leftovers.vm_processes(created)[0][0].pid == children[0].pid
        assert leftovers.find(created)[0].startswith(f"process {children[0].pid}: ")
        assert leftovers.destroy(created)
        assert children[1].poll() is None
        assert leftovers.find(created) == []
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_purge_of_a_cluster_that_is_down_removes_its_directory(created: layout.Layout) -> None:
    assert DevCluster(created, Progress()).purge() == []
    assert not created.directory.exists()


# -- the demo's own machinery ------------------------------------------------------------------------------------------


def test_recorder_stops_at_a_failure_but_cleans_up() -> None:
    recorder = Recorder(Progress())
    ran: list[str] = []

    def step(name: str, error: Exception | None = None) -> Callable[[], str]:
        def work() -> str:
            ran.append(name)
            if error is not None:
                raise error
            return "fine"

        return work

    recorder.run("one", step("one"))
    recorder.run("two", step("two", RuntimeError("broken")))
    recorder.run("three", step("three"))
    recorder.run("clean", step("clean"), always=True)
    assert ran == ["one", "two", "clean"]
    assert [row.passed for row in recorder.rows] == [True, False, True]
    assert recorder.error is not None
    assert recorder.error.message == "RuntimeError: broken"


def test_terraform_commands_are_checked(tmp_path: Path) -> None:
    def fake(code: str) -> terraform.Terraform:
        return terraform.Terraform(
            terraform.Found((sys.executable, "-c", code), "a stand-in"), tmp_path, {}, timeout_s=20
        )

    seen: list[str] = []
    done = fake("print('\\x1b[1mone\\x1b[0m')").run("plan", watch=seen.append)
    assert (done.exit_code, done.output, seen) == (0, "one", ["one"])
    with pytest.raises(CliError, match=r"terraform plan ended with 3 instead of 0 or 2:\n  terraform\| why"):
        fake("print('why'); raise SystemExit(3)").plan_exit_code()


def wait_until(condition: Callable[[], bool]) -> None:
    import time

    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
