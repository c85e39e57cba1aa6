"""The watchdog over stand-in processes: what it does at which second, what it remembers, and what it never does."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.drivers.qemu import watchdog
from controlplane.drivers.qemu.watchdog import MARK, UNGRANTED_GRACE_S, Watchdog, process_stat

WAIT_S = 20.0


class Now:
    """CLOCK_BOOTTIME as the test sets it."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


class Child:
    """A process that stands for a guest."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(["sleep", "600"])
        self.pid = self._process.pid
        self.start = process_stat(self.pid)[1]
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def told(self, action: str = "pause", **changes: object) -> dict[str, object]:
        told: dict[str, object] = {"uid": self.folder.name, "pid": self.pid, "start": self.start, "action": action}
        return {**told, "folder": str(self.folder), **changes}

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.start

    @property
    def how(self) -> str:
        """`running`, `halted` or `dead`, read once a signal that was sent has surely arrived."""
        if self._process.poll() is not None:
            return "dead"
        return "halted" if process_stat(self.pid)[0] in "Tt" else "running"

    def becomes(self, how: str) -> None:
        until(lambda: self.how == how, f"{how}, it is {self.how}")

    def stays_running(self) -> None:
        time.sleep(0.05)
        assert self.how == "running"

    @property
    def mark(self) -> str | None:
        path = self.folder / MARK
        return path.read_text().strip() if path.exists() else None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait(WAIT_S)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not {what}"
        time.sleep(0.005)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        child.end()


@pytest.fixture
def child(children: list[Child], tmp_path: Path) -> Child:
    children.append(Child(tmp_path / "vm"))
    return children[0]


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def dog(tmp_path: Path, now: Now) -> Watchdog:
    return Watchdog(str(tmp_path / "state.json"), now)


def lease(ends: float, grace: float = 2.0) -> dict[str, object]:
    return {"lease": {"ends": ends, "grace": grace}}


def test_a_paused_guest_is_halted_at_the_end_let_go_by_a_renewal_and_killed_after_its_grace(
    dog: Watchdog, child: Child, now: Now
) -> None:
    dog.handle({**lease(1010), "guard": [child.told()]})
    now.s = 1009.99
    assert dog.act() == pytest.approx(0.01)
    child.stays_running()
    now.s = 1010
    dog.act()
    child.becomes("halted")
    dog.save()
    assert child.mark == "halted"
    now.s = 1011.9
    dog.handle(lease(1020))
    child.becomes("running")
    assert child.mark is None
    now.s = 1020
    dog.act()
    child.becomes("halted")
    now.s = 1022
    dog.act()
    child.becomes("dead")
    dog.act()
    assert dog.idle
    dog.save()
    assert child.mark == "killed"


def test_a_guest_to_be_stopped_is_killed_at_the_end(dog: Watchdog, child: Child, now: Now) -> None:
    dog.handle({**lease(1010), "guard": [child.told("stop")]})
    child.stays_running()
    now.s = 1010
    dog.act()
    child.becomes("dead")
    dog.save()
    assert child.mark == "killed"


def test_without_any_lease_nothing_runs_and_the_first_one_lets_it_go(dog: Watchdog, child: Child, now: Now) -> None:
    dog.handle({"guard": [child.told()]})
    child.becomes("halted")
    now.s += UNGRANTED_GRACE_S - 1
    dog.act()
    child.becomes("halted")
    dog.handle(lease(now.s + 10))
    child.becomes("running")


def test_without_any_lease_it_is_killed_in_the_end(dog: Watchdog, child: Child, now: Now) -> None:
    dog.handle({"guard": [child.told()]})
    now.s += UNGRANTED_GRACE_S
    dog.act()
    child.becomes("dead")


def test_a_lease_never_gets_shorter(dog: Watchdog, child: Child, now: Now) -> None:
    dog.handle({**lease(1010), "guard": [child.told()]})
    assert dog.handle(lease(1005))["ends"] == 1010
    now.s = 1006
    dog.act()
    child.stays_running()


@pytest.mark.parametrize("ends", [1e12, float("nan"), float("inf")])
def test_a_lease_that_cannot_be_is_refused(dog: Watchdog, child: Child, ends: float) -> None:
    with pytest.raises(ValueError, match="not possible"):
        dog.handle({**lease(ends), "guard": [child.told()]})
    assert dog.idle


def test_what_somebody_else_halted_is_not_let_go(dog: Watchdog, child: Child, now: Now) -> None:
    dog.handle({**lease(1010), "guard": [child.told()]})
    child.send(signal.SIGSTOP)
    child.becomes("halted")
    now.s = 1010
    dog.act()
    dog.handle(lease(1020))
    time.sleep(0.05)
    assert (child.how, child.mark) == ("halted", None)
    # But it is on request, while there is a lease.
    dog.handle({"resume": [child.key]})
    child.becomes("running")


def test_nobody_lets_a_guest_go_on_after_the_end(dog: Watchdog, child: Child, now: Now) -> None:
    dog.handle({**lease(1010, 5), "guard": [child.told()]})
    now.s = 1011
    dog.act()
    child.becomes("halted")
    dog.handle({"resume": [child.key]})
    time.sleep(0.05)
    assert child.how == "halted"
    child.send(signal.SIGCONT)
    dog.act()
    child.becomes("halted")


def test_release_lets_go_of_what_it_halted_and_forgets_it(dog: Watchdog, child: Child, now: Now) -> None:
    dog.handle({**lease(1010, 60), "guard": [child.told()]})
    now.s = 1010
    dog.act()
    child.becomes("halted")
    dog.handle({"release": [child.key]})
    child.becomes("running")
    now.s = 1100
    dog.act()
    child.stays_running()
    assert dog.idle


def test_the_action_may_change_while_it_runs(dog: Watchdog, child: Child, now: Now) -> None:
    dog.handle({**lease(1010, 60), "guard": [child.told("stop")]})
    dog.handle({"guard": [child.told("pause")]})
    now.s = 1010
    dog.act()
    child.becomes("halted")
    dog.handle({"guard": [child.told("stop")]})
    child.becomes("dead")


def test_a_process_is_its_pid_and_its_start(dog: Watchdog, child: Child, now: Now) -> None:
    other = [child.pid, child.start + 1]
    assert dog.handle({**lease(1010), "guard": [child.told(start=child.start + 1)]})["gone"] == [tuple(other)]
    now.s = 1100
    dog.act()
    child.stays_running()
    child.end()
    assert dog.handle({"guard": [child.told()]})["gone"] == [child.key]


def test_a_restarted_one_goes_on_with_the_same_deadline(tmp_path: Path, child: Child, now: Now) -> None:
    state = str(tmp_path / "state.json")
    Watchdog(state, now).handle({**lease(1010), "guard": [child.told()]})
    again = Watchdog(state, now)
    again.load()
    again.act()
    child.stays_running()
    now.s = 1010
    late = Watchdog(state, now)
    late.load()
    late.act()
    child.becomes("halted")
    late.save()
    # It lets go of what the one before halted.
    last = Watchdog(state, now)
    last.load()
    last.handle(lease(1020))
    child.becomes("running")


def test_what_another_boot_wrote_counts_for_nothing(
    tmp_path: Path, child: Child, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = str(tmp_path / "state.json")
    Watchdog(state, now).handle({**lease(1010), "guard": [child.told()]})
    monkeypatch.setattr(watchdog, "boot_id", lambda: "another")
    again = Watchdog(state, now)
    again.load()
    assert again.idle
    assert again.handle({})["ends"] is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1}', "null"])
def test_a_damaged_state_does_not_keep_it_from_starting(tmp_path: Path, now: Now, child: Child, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    again = Watchdog(str(tmp_path / "state.json"), now)
    again.load()
    again.handle({**lease(1010), "guard": [child.told()]})
    child.stays_running()


def test_a_state_that_cannot_be_written_is_no_answer_and_keeps_nobody_running(
    tmp_path: Path, child: Child, now: Now
) -> None:
    dog = Watchdog(str(tmp_path / "absent" / "state.json"), now)
    with pytest.raises(OSError, match="absent"):
        dog.handle({**lease(1010), "guard": [child.told()]})
    now.s = 1010
    dog.act()
    child.becomes("halted")


@given(data=st.data())
@settings(max_examples=25)
def test_no_order_of_events_leaves_a_guest_running_without_a_lease(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Renewals, restarts, registrations, signals from others and time in any order."""
    folder = tmp_path_factory.mktemp("events")
    now, child, ends, guarded = Now(), Child(folder / "vm"), 0.0, False
    dog = Watchdog(str(folder / "state.json"), now)
    try:
        for _ in range(data.draw(st.integers(3, 12))):
            match data.draw(st.sampled_from(["time", "renew", "guard", "restart", "release", "continue", "resume"])):
                case "time":
                    now.s += data.draw(st.sampled_from([0.5, 2.0, 5.0]))
                case "renew":
                    until_s = now.s + data.draw(st.sampled_from([-1.0, 1.0, 4.0]))
                    dog.handle(lease(until_s, data.draw(st.sampled_from([0.0, 2.0]))))
                    ends = max(ends, until_s)
                case "guard":
                    gone = dog.handle({"guard": [child.told(data.draw(st.sampled_from(["pause", "stop"])))]})["gone"]
                    guarded = not gone
                case "restart":
                    dog = Watchdog(str(folder / "state.json"), now)
                    dog.load()
                case "release":
                    dog.handle({"release": [child.key]})
                    guarded = False
                case "continue":
                    child.send(signal.SIGCONT)
                case _:
                    dog.handle({"resume": [child.key]})
            dog.act()
            if guarded and now.s >= ends:
                until(lambda: child.how != "running", "halted or dead")
            elif not guarded and child.how != "dead":
                until(lambda: child.how == "running", "left alone")
    finally:
        child.end()


# -- as a process


def launch(folder: Path) -> int:
    argv = [sys.executable, "-I", "-S", watchdog.__file__, "--socket", "w.sock", "--state", "w.json"]
    # Its output is no pipe of ours: the process in the background would keep it open.
    with (folder / "log").open("ab") as output:
        return subprocess.run(argv, cwd=folder, stdout=output, stderr=output, timeout=WAIT_S, check=False).returncode


class Caller:
    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WAIT_S)
        os.chdir(folder)  # the path may be too long for a socket; pytest's monkeypatch goes back
        try:
            self._socket.connect("w.sock")
        except OSError:
            self._socket.close()
            raise
        self._stream = self._socket.makefile("rw")
        self.pid = int.from_bytes(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)

    def ask(self, **request: object) -> dict[str, object]:
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        return json.loads(self._stream.readline())

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For one watchdog process, which is gone in the end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dog").mkdir()
    yield tmp_path / "dog"
    try:
        caller = Caller(tmp_path / "dog")
    except OSError:
        return
    os.kill(caller.pid, signal.SIGKILL)
    caller.close()


def test_it_acts_on_time_by_itself_and_after_it_was_killed(folder: Path, child: Child) -> None:
    assert launch(folder) == 0
    assert launch(folder) == watchdog.IN_USE
    caller = Caller(folder)
    begun = watchdog.boottime_s()
    assert caller.ask(**lease(begun + 1.0, 0.5), guard=[child.told()])["gone"] == []
    assert "error" in caller.ask(guard=[child.told("fly")])
    assert "error" in caller.ask(guard=3)
    pid = caller.pid
    caller.close()
    child.becomes("halted")
    assert 0.9 <= watchdog.boottime_s() - begun <= 3.0
    os.kill(pid, signal.SIGKILL)
    until(lambda: launch(folder) == 0, "started again")
    child.becomes("dead")
    until(lambda: child.mark == "killed", "marked after it was killed")


def test_it_does_not_wait_for_a_caller_that_says_nothing(folder: Path, child: Child) -> None:
    assert launch(folder) == 0
    silent, caller = Caller(folder), Caller(folder)
    silent._stream.write('{"guard": [')
    silent._stream.flush()
    caller.ask(**lease(watchdog.boottime_s() + 0.3, 0.0), guard=[child.told()])
    child.becomes("dead")
    silent.close()
    caller.close()


def test_it_ends_when_nobody_needs_it(folder: Path, child: Child) -> None:
    assert launch(folder) == 0
    caller = Caller(folder)
    pidfd = os.pidfd_open(caller.pid)
    caller.ask(**lease(watchdog.boottime_s() + 0.2, 0.0), guard=[child.told()])
    caller.close()
    child.becomes("dead")
    assert select.select([pidfd], [], [], WAIT_S)[0], "it goes on for nobody"
    os.close(pidfd)
