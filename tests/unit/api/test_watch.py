"""Watching: every change once, in order, from where the client was; and streams that end as they should."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from support.builders import declare_namespace
from unit.api.rig import SPEC, Rig, eventually, served


class Stream:
    """One open watch; `next` gives what came next, heartbeats aside."""

    def __init__(self, api: Rig, headers: dict[str, str] | None = None, **params: Any) -> None:
        self._api = api
        self.session = api.new_session()
        self.answer = self.session.get(api.url("/watch"), params=params, headers=headers, stream=True, timeout=(5, 10))
        self.heartbeats = 0
        self._lines = self.answer.iter_lines(chunk_size=1, decode_unicode=True)

    def __enter__(self) -> Stream:
        assert self.answer.status_code == 200, self.answer.text
        assert self.answer.headers["Content-Type"].startswith("text/event-stream")
        assert next(self._lines).startswith(": watching from revision ")
        return self

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self.session.close()

    def frames(self) -> Iterator[dict[str, str]]:
        frame: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(":"):
                self.heartbeats += 1
            elif line:
                name, _, value = line.partition(": ")
                frame[name] = value
            elif frame:
                yield frame
                frame = {}

    def take(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for frame in self.frames():
            data = json.loads(frame["data"])
            components = self._api.described.document["components"]
            jsonschema.validate(data, {"$ref": "#/components/schemas/WatchData", "components": components})
            found.append({**frame, **data})
            if len(found) == count:
                break
        return found


def short(events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(each["event"], each["kind"], each["object"].get("name") or each["object"]["kind"]) for each in events]


def test_changes_come_as_they_happen(api: Rig) -> None:
    with Stream(api) as stream:
        api.put("/namespaces/demo", {"spec": {}})
        api.put("/namespaces/demo", {"spec": {"max_vcpu": 3}})
        api.delete("/namespaces/demo")
        events = stream.take(3)
    assert short(events) == [
        ("added", "Namespace", "demo"),
        ("modified", "Namespace", "demo"),
        ("deleted", "Namespace", "demo"),
    ]
    assert [event["id"] for event in events] == ["1", "2", "3"]
    assert [event["revision"] for event in events] == [1, 2, 3]
    assert events[1]["object"]["spec"]["max_vcpu"] == 3


def test_the_past_is_told_from_where_the_client_was(api: Rig) -> None:
    for name in ("a", "b", "c"):
        api.put(f"/namespaces/{name}", {"spec": {}})
    with Stream(api, **{"from": 1}) as stream:
        api.put("/namespaces/d", {"spec": {}})
        assert [event["object"]["name"] for event in stream.take(3)] == ["b", "c", "d"]
    with Stream(api, headers={"Last-Event-ID": "3"}, **{"from": 1}) as stream:
        assert [event["object"]["name"] for event in stream.take(1)] == ["d"]


def test_a_resumed_watch_misses_nothing(api: Rig) -> None:
    api.with_host()
    start = api.replica.state.revision
    for number in range(5):
        api.active(f"vm-{number}")
    expected = [(event.revision, event.kind.value) for event in api.replica.remembered_events(start)]
    seen: list[tuple[int, str]] = []
    at = start
    while len(seen) < len(expected):
        with Stream(api, **{"from": at}) as stream:
            for event in stream.take(min(5, len(expected) - len(seen))):
                seen.append((event["revision"], event["kind"]))
                if "id" in event:
                    at = int(event["id"])
            # What came after the last id comes again.
            seen = [each for each in seen if each[0] <= at]
    assert seen == expected


def test_filters(api: Rig) -> None:
    with Stream(api, kind="MicroVM", namespace="demo") as stream:
        for namespace in ("other", "demo"):
            api.put(f"/namespaces/{namespace}", {"spec": {}})
            api.put(f"/namespaces/{namespace}/microvms/{namespace}-vm", {"spec": SPEC})
        assert short(stream.take(1)) == [("added", "MicroVM", "demo-vm")]
    with Stream(api, namespace="demo", **{"from": 0}) as stream:
        assert {event["kind"] for event in stream.take(2)} == {"Operation", "MicroVM"}


def test_a_forgotten_revision_is_410(api: Rig) -> None:
    async def forget() -> None:
        api.replica.remembered = 3
        api.replica.reset()

    api.run(forget())
    for number in range(6):
        api.put(f"/namespaces/n{number}", {"spec": {}})
    answer = api.get("/watch", params={"from": 1})
    assert (answer.status_code, answer.json()["code"]) == (410, "compacted")
    assert answer.json()["errors"][0]["pointer"] == "/query/from"
    assert "List again" in answer.json()["hint"]
    revision = api.get("/namespaces").json()["revision"]
    with Stream(api, **{"from": revision}) as stream:
        api.put("/namespaces/last", {"spec": {}})
        assert [event["object"]["name"] for event in stream.take(1)] == ["last"]


def test_silence_has_a_heartbeat(api: Rig) -> None:
    with Stream(api) as stream:
        frames = stream.frames()
        threading.Timer(0.7, api.do, [declare_namespace()]).start()
        assert next(frames)["event"] == "added"
        assert stream.heartbeats >= 2


def test_a_client_that_goes_away_is_forgotten(api: Rig) -> None:
    counter = api.watchers
    with Stream(api):
        eventually(lambda: counter.open == 1, "the stream is counted")
    eventually(lambda: counter.open == 0, "the stream is forgotten")


def test_a_client_that_is_too_slow_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    with served(tmp_path, watch_queue=4) as api:
        with Stream(api) as stream:

            async def burst() -> None:
                # In one go, so that the writer cannot keep up.
                for number in range(10):
                    api.replica.apply_now(declare_namespace(f"n{number}"))
                api.replica.wake()

            api.run(burst())
            frames = list(stream.frames())
        assert frames[-1]["event"] == "error"
        assert json.loads(frames[-1]["data"])["code"] == "too_slow"
        ids = [int(frame["id"]) for frame in frames if "id" in frame]
        with Stream(api, **{"from": max(ids, default=0)}) as stream:
            assert api.get("/namespaces").status_code == 200


def test_there_is_a_limit_to_watchers(tmp_path: Path) -> None:
    with served(tmp_path, max_watchers=1) as api:
        with Stream(api):
            refused = api.get("/watch")
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_watchers")
        eventually(lambda: api.watchers.open == 0, "the first has gone")
        with Stream(api):
            pass


# -- shutting down -----------------------------------------------------------------------------------------------------


def test_shutting_down_ends_what_waits_and_finishes_what_writes(tmp_path: Path) -> None:
    answers: dict[str, requests.Response] = {}

    with served(tmp_path) as api:
        api.with_host()
        api.put_vm()

        async def close_gate() -> None:
            api.replica.gate.clear()

        def ask(name: str, method: str, path: str, **options: Any) -> threading.Thread:
            def run() -> None:
                with api.new_session() as session:
                    answers[name] = session.request(method, api.url(path), timeout=30, **options)

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        threads = [
            ask("poll", "GET", "/namespaces/demo/microvms/web", params={"wait_for": "running", "wait_s": 60}),
            ask("watch", "GET", "/watch"),
        ]
        eventually(lambda: api.replica.waiting == 1 and api.watchers.open == 1, "both wait")
        api.run(close_gate())
        threads.append(ask("write", "PUT", "/namespaces/late", json={"spec": {}}))
        eventually(lambda: api.replica.held == 1, "the write is under way")

        began = time.monotonic()
        stopping = threading.Thread(target=lambda: api.run(api.server.stop()))
        stopping.start()
        for thread in threads[:2]:
            thread.join(10)
        assert time.monotonic() - began < 5
        assert answers["poll"].headers["Flintlock-Wait"] == "timeout"
        assert answers["watch"].status_code == 200
        assert "write" not in answers
        api.loop.call_soon_threadsafe(api.replica.gate.set)
        threads[2].join(10)
        stopping.join(10)
        assert answers["write"].status_code == 201
        with pytest.raises(requests.ConnectionError):
            api.get("//healthz", timeout=2)
