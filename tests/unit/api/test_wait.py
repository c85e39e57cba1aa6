"""Long polls: they answer when it is so, not before, and never later than asked."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import requests
from support.builders import failure
from unit.api.rig import Rig, eventually

from controlplane.model.resources import ObservedPower

VM = "/namespaces/demo/microvms/web"


class Poll:
    """A GET that is held by the server, in a thread."""

    def __init__(self, api: Rig, **params: Any) -> None:
        self.answer: requests.Response | None = None
        self.began = time.monotonic()
        self._api = api
        self._params = params
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with self._api.new_session() as session:
            self.answer = session.get(self._api.url(VM), params=self._params, timeout=30)

    def result(self) -> requests.Response:
        self._thread.join(30)
        assert self.answer is not None
        return self.answer

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()


@pytest.fixture(autouse=True)
def placed(api: Rig) -> None:
    api.with_host()
    api.put_vm()
    api.place()


def waiting(api: Rig, **params: Any) -> Poll:
    """A poll that has reached the server and is held there."""
    before = api.replica.waiting
    poll = Poll(api, **params)
    eventually(lambda: api.replica.waiting > before, "the poll is held")
    return poll


@pytest.mark.parametrize(
    ("wait_for", "first", "then"),
    [
        ("running", {"power": ObservedPower.STOPPED}, {"ready": False}),
        ("ready", {"ready": False}, {"ready": True}),
        ("settled", {"power": ObservedPower.STOPPED}, {}),
        ("in_sync", {"vcpu": 4}, {}),
    ],
)
def test_it_answers_when_it_is_so(api: Rig, wait_for: str, first: dict[str, Any], then: dict[str, Any]) -> None:
    poll = waiting(api, wait_for=wait_for, wait_s=20)
    api.report(**first)
    assert poll.waits
    api.report(**then)
    answer = poll.result()
    assert (answer.status_code, answer.headers["Flintlock-Wait"]) == (200, "done")
    assert answer.json()["status"]["power_state"] == "running"
    assert time.monotonic() - poll.began < 10


@pytest.mark.parametrize(("wait_for", "power"), [("stopped", "stopped"), ("paused", "paused")])
def test_power_that_is_asked_for(api: Rig, wait_for: str, power: str) -> None:
    api.report()
    poll = waiting(api, wait_for=wait_for, wait_s=20)
    api.report(power=ObservedPower(power))
    assert poll.result().headers["Flintlock-Wait"] == "done"


def test_what_is_so_already_is_answered_at_once(api: Rig) -> None:
    api.report()
    for wait_for in ("running", "ready", "settled", "in_sync"):
        began = time.monotonic()
        answer = api.get(VM, params={"wait_for": wait_for, "wait_s": 20})
        assert answer.headers["Flintlock-Wait"] == "done"
        assert time.monotonic() - began < 5


def test_the_deadline_answers_with_the_present_object(api: Rig) -> None:
    began = time.monotonic()
    answer = api.get(VM, params={"wait_for": "running", "wait_s": 0.2})
    assert 0.2 <= time.monotonic() - began < 5
    assert (answer.status_code, answer.headers["Flintlock-Wait"]) == (200, "timeout")
    assert answer.json()["status"]["phase"] == "placed"


def test_an_older_generation_does_not_count(api: Rig) -> None:
    api.report()
    api.put_vm(vcpu=2)
    poll = waiting(api, wait_for="running", generation=2, wait_s=20)
    api.report(generation=1)
    assert poll.waits
    api.report()
    assert poll.result().json()["status"]["observed_generation"] == 2


def test_settled_waits_for_a_restart_that_was_asked_for(api: Rig) -> None:
    api.report()
    api.post(VM + "/actions/restart")
    poll = waiting(api, wait_for="settled", wait_s=20)
    api.report(restart_seq=0)
    assert poll.waits
    api.report()
    assert poll.result().headers["Flintlock-Wait"] == "done"


def test_a_microvm_that_failed_for_good_is_answered_at_once(api: Rig) -> None:
    poll = waiting(api, wait_for="ready", wait_s=20)
    api.report(power=ObservedPower.ABSENT, generation=None, ready=False, failure=failure())
    answer = poll.result()
    assert (answer.status_code, answer.headers["Flintlock-Wait"]) == (200, "failed")
    assert answer.json()["status"]["phase"] == "failed"
    messages = [each["message"] for each in answer.json()["status"]["conditions"]]
    assert "there is no image demo/kernel:6.1" in messages


def test_gone(api: Rig) -> None:
    api.report()
    poll = waiting(api, wait_for="gone", wait_s=20)
    api.delete(VM)
    assert poll.waits
    api.confirm_destroyed()
    answer = poll.result()
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["Flintlock-Wait"] == "done"


def test_gone_is_about_the_one_that_was_there(api: Rig) -> None:
    api.report()
    api.delete(VM)
    poll = waiting(api, wait_for="gone", wait_s=20)
    api.confirm_destroyed()
    api.put_vm()
    assert poll.result().status_code == 404


def test_waiting_for_what_is_being_deleted_ends_at_once(api: Rig) -> None:
    poll = waiting(api, wait_for="running", wait_s=20)
    api.delete(VM)
    answer = poll.result()
    assert answer.headers["Flintlock-Wait"] == "failed"
    assert answer.json()["status"]["phase"] == "deleting"


def test_a_client_that_goes_away_holds_nothing(api: Rig) -> None:
    before = api.replica.waiting
    with api.new_session() as session, pytest.raises(requests.ReadTimeout):
        session.get(api.url(VM), params={"wait_for": "running", "wait_s": 60}, timeout=(5, 0.3))
    eventually(lambda: api.replica.waiting == before, "nothing waits any more")
