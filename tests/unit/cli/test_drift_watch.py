"""flintctl drift watch: what is told, once, however often it has to be tried; over real HTTP and real programs."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from unit.api.rig import Rig, eventually

from controlplane.cli.commands import drift_watch
from controlplane.cli.drift.classes import Class
from controlplane.cli.drift.delivery import signature
from controlplane.cli.drift.following import LIMIT, Follower, What
from controlplane.cli.drift.report import Difference, Finding, Report
from controlplane.model.resources import ObservedPower

Cli = Callable[..., Any]
SECRET = "a secret of 16 bytes and more"


@dataclass
class Receiver:
    """Answers with `answers` in turn, the last one from then on, and keeps what it got."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [204])
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def notices(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.requests.append((dict(self.headers), body))
            self.send_response(made.answers.pop(0) if len(made.answers) > 1 else made.answers[0])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def running(api: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(drift_watch, "RETRY_S", (0.01, 0.05))
    api.with_host()
    api.active()
    return api


@pytest.fixture
def watch(cli: Cli, receiver: Receiver, tmp_path: Path) -> Cli:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")

    def run(*arguments: str) -> Any:
        hook = ("--webhook", receiver.url, "--secret-file", str(secret))
        return cli("drift", "watch", *hook, "--debounce", "0", *arguments)

    return run


def stop(api: Rig) -> None:
    api.report(power=ObservedPower.STOPPED, cause="process exited (signal 9)")


def test_a_notice_is_signed_over_its_time_and_body(watch: Cli, running: Rig, receiver: Receiver) -> None:
    stop(running)
    answer = watch("--limit", "1")
    assert answer.code == 0, answer.err
    ((headers, body),) = receiver.requests
    found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers["Flintlock-Signature"])
    assert found is not None
    assert abs(int(found[1]) - time.time()) < 30
    assert found[2] == hmac.new(SECRET.encode(), f"{found[1]}.".encode() + body, hashlib.sha256).hexdigest()
    notice = json.loads(body)
    assert (notice["what"], notice["count"], notice["revision"]) == ("appeared", 1, running.replica.state.revision)
    (shown,) = notice["findings"]
    assert (shown["resource"], shown["fields"][0]["pointer"]) == ("MicroVM demo/web", "/spec/power_state")


def test_a_signature_is_that_of_everybody_else() -> None:
    # printf '17.{}' | openssl dgst -sha256 -hmac key
    assert signature(b"key", 17, b"{}") == "t=17,v1=e66392eac42eafc68c35a01c712811e016386c12456975fc3af80c9268568e3a"


def test_it_is_tried_again_with_the_same_id(watch: Cli, running: Rig, receiver: Receiver) -> None:
    receiver.answers = [503, 429, 204]
    stop(running)
    answer = watch("--limit", "1")
    assert answer.code == 0
    assert answer.err.count("trying again") == 2
    assert len({notice["id"] for notice in receiver.notices()}) == 1
    assert len(receiver.requests) == 3


def test_a_receiver_that_refuses_ends_it(watch: Cli, running: Rig, receiver: Receiver) -> None:
    receiver.answers = [401]
    stop(running)
    answer = watch()
    assert (answer.code, "the receiver answers 401" in answer.err, len(receiver.requests)) == (1, True, 1)


@pytest.mark.timeout(30)
def test_drift_that_appears_and_ends_wakes_it(watch: Cli, running: Rig, receiver: Receiver) -> None:
    """The regular look is an hour away: only the stream can have told."""

    def play() -> None:
        time.sleep(0.5)
        stop(running)
        eventually(lambda: bool(receiver.requests), "it was told")
        running.report(power=ObservedPower.RUNNING)

    player = threading.Thread(target=play)
    player.start()
    answer = watch("--limit", "2", "--every", "3600")
    player.join()
    assert answer.code == 0, answer.err
    assert [(each["what"], each["count"]) for each in receiver.notices()] == [("appeared", 1), ("ended", 0)]


def test_a_program_gets_the_notice_on_its_standard_input(cli: Cli, running: Rig, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())")
    stop(running)
    answer = cli("drift", "watch", "--exec", f"{sys.executable} '{program}' 'got it.json'", "--limit", "1")
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "got it.json").read_text())["what"] == "appeared"


def test_a_program_that_fails_is_run_again(cli: Cli, running: Rig, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os, sys; os.mkdir('first') if not os.path.exists('first') else sys.exit(0); sys.exit(3)")
    stop(running)
    answer = cli("drift", "watch", "--exec", f"{sys.executable} {program}", "--limit", "1")
    assert (answer.code, "ended with 3; trying again" in answer.err) == (0, True)


def test_what_cannot_work_is_refused_at_once(cli: Cli, running: Rig, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("short")
    good = tmp_path / "good"
    good.write_text(SECRET)
    for told, arguments in {
        "give one of": (),
        "give one of --": ("--exec", "true", "--webhook", "https://x"),
        "needs --secret-file": ("--webhook", "https://x"),
        "must hold 16 to 4096 bytes": ("--webhook", "https://x", "--secret-file", str(short)),
        "cannot be read": ("--webhook", "https://x", "--secret-file", "none"),
        "is not an https:// address": ("--webhook", "http://example.com/", "--secret-file", str(good)),
        "credentials": ("--webhook", "https://user:pass@x/", "--secret-file", str(good)),
        "is for --webhook": ("--exec", "true", "--secret-file", str(good)),
        "No closing quotation": ("--exec", "'"),
        "names no program": ("--exec", " "),
        "known from a plan only": ("--exec", "true", "--fail-on", "planned"),
    }.items():
        refused = cli("drift", "watch", *arguments)
        assert (refused.code, told in refused.err) == (1, True), (told, refused.err)
    early = cli("drift", "-n", "demo", "watch", "--exec", "true")
    assert (early.code, "come after its name" in early.err) == (1, True)


def test_a_program_that_is_not_there_ends_it(cli: Cli, running: Rig) -> None:
    stop(running)
    answer = cli("drift", "watch", "--exec", "/no/such/program")
    assert (answer.code, "cannot be run" in answer.err) == (1, True)


# -- what is new -------------------------------------------------------------------------------------------------------


def seen(*pointers: str, klass: Class = Class.DRIFTED) -> Report:
    differences = tuple(map(Difference, pointers))
    finding = Finding(klass=klass, resource="MicroVM demo/web", identity="uid", differences=differences)
    return Report(1, (finding,) if pointers else (), frozenset({Class.DRIFTED}))


@pytest.fixture
def follower() -> Follower:
    ids = count(1)
    return Follower(new_id=lambda: str(next(ids)))


def test_nothing_is_told_twice(follower: Follower) -> None:
    assert follower.look(seen()) is None
    first = follower.look(seen("/a"))
    assert first is not None
    follower.told(first)
    assert follower.look(seen("/a")) is None
    second = follower.look(seen("/a", "/b"))
    assert second is not None
    follower.told(second)
    third = follower.look(seen())
    assert third is not None
    assert [(each.id, each.what) for each in (first, second, third)] == [
        ("1", What.APPEARED),
        ("2", What.CHANGED),
        ("3", What.ENDED),
    ]


def test_what_appeared_and_ended_before_it_was_told_is_not_told(follower: Follower) -> None:
    assert follower.look(seen("/a")) is not None
    assert follower.look(seen()) is None
    again = follower.look(seen("/a"))
    assert again is not None
    assert again.id == "2"


def test_only_what_counts_is_told(follower: Follower) -> None:
    assert follower.look(seen("/a", klass=Class.UNREACHABLE)) is None


def test_a_notice_is_bounded(follower: Follower) -> None:
    finding = seen("/a").findings[0]
    many = tuple(Finding(klass=finding.klass, resource="x", identity=str(number)) for number in range(LIMIT + 5))
    notice = follower.look(Report(1, many, frozenset({Class.DRIFTED})))
    assert notice is not None
    document = notice.document()
    assert (document["count"], len(document["findings"])) == (LIMIT + 5, LIMIT)
