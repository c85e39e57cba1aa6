"""The client against a real HTTPS server: repeats, endpoints in turn, deadlines, interruption, refusals."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.terraform.fake_api import FakeApi
from provider_shim.client import ApiError, CancelledError, Client, ClientSettings, UnreachableError
from provider_shim.framework import diagnostics
from provider_shim.framework.diagnostics import ProviderError
from provider_shim.resources.problems import told_to_user

DEMO = "/namespaces/demo"


class NoFields:
    """A locator of problems that are about no attribute."""

    def path(self, pointer: str) -> diagnostics.Path:
        return diagnostics.ROOT


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with FakeApi(tmp_path) as api:
        yield api


def client_of(
    api: FakeApi, *more: str, cancel: threading.Event | None = None, token: str = "", retry_s: float = 10
) -> Client:
    settings = ClientSettings(
        endpoints=(*more, api.endpoint), token=token or api.token, ca_file=str(api.files.ca), retry_s=retry_s
    )
    return Client(settings, cancel or threading.Event())


def dead_endpoint() -> str:
    """An address that refuses connections: bound once, closed again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"https://127.0.0.1:{listener.getsockname()[1]}"


def test_a_dead_endpoint_is_skipped_for_good(api: FakeApi) -> None:
    client = client_of(api, dead_endpoint())
    started = time.monotonic()
    assert client.send("PUT", DEMO, body={"spec": {}}).status == 201
    for _ in range(5):
        assert client.get(DEMO).body["name"] == "demo"
    assert time.monotonic() - started < 3
    assert [each.method for each in api.requests] == ["PUT"] + ["GET"] * 5


def test_what_has_to_be_done_is_done_after_an_interruption(api: FakeApi) -> None:
    cancel = threading.Event()
    cancel.set()
    client = client_of(api, dead_endpoint(), cancel=cancel)
    with pytest.raises(CancelledError):
        client.send("PUT", DEMO, body={"spec": {}})
    assert client.send("PUT", DEMO, body={"spec": {}}, interruptible=False).status == 201


def test_lost_answers_and_no_leader_are_repeated_with_the_same_key(api: FakeApi) -> None:
    api.faults.unavailable = 1
    api.faults.lost_answers = 1
    headers = {"Idempotency-Key": "k1", "If-None-Match": "*"}
    answer = client_of(api).send("PUT", DEMO, body={"spec": {}}, headers=headers)
    assert answer.body["uid"] == api.store.created_uids[0]
    assert len(api.store.created_uids) == 1
    assert [each.headers["idempotency-key"] for each in api.calls("PUT")] == ["k1"] * 3


def test_the_deadline_ends_the_repeats(api: FakeApi) -> None:
    api.faults.unavailable = 10_000
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="There is no leader"):
        client_of(api).get(DEMO, deadline=time.monotonic() + 0.5)
    assert 0.4 < time.monotonic() - started < 2


def test_nodes_that_answer_and_have_no_leader_are_not_taken_for_silence(api: FakeApi) -> None:
    api.faults.unavailable = 10_000
    with pytest.raises(ProviderError) as told, told_to_user("create namespace demo", NoFields()):
        client_of(api, retry_s=0.3).send("PUT", DEMO, body={"spec": {}})
    (diagnostic,) = told.value.diagnostics
    assert diagnostic.summary == "Cannot create namespace demo: the control plane cannot decide now"
    assert "There is no leader." in diagnostic.detail
    assert "Nothing was removed from state. Look at `flintctl cluster status`" in diagnostic.detail
    assert diagnostic.detail.endswith("Then run again. [no_leader]")


def test_an_interrupt_ends_the_repeats(api: FakeApi) -> None:
    api.faults.unavailable = 10_000
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        client_of(api, cancel=cancel).get(DEMO, deadline=time.monotonic() + 30)
    timer.join()
    assert time.monotonic() - started < 3


def test_a_refusal_is_not_repeated_and_says_where(api: FakeApi) -> None:
    client = client_of(api)
    with pytest.raises(ApiError) as refused:
        client.send("PUT", DEMO, body={"spec": {"max_vcpu": -1}})
    assert (refused.value.status, refused.value.code) == (422, "invalid")
    assert [each.pointer for each in refused.value.errors] == ["/spec/max_vcpu"]
    with pytest.raises(ApiError) as missing:
        client.get("/namespaces/none")
    assert (missing.value.status, missing.value.code) == (404, "not_found")
    assert len(api.requests) == 2


def test_a_wrong_token_is_said_and_not_shown(api: FakeApi) -> None:
    client = client_of(api, token="not-the-token")
    with pytest.raises(ApiError) as refused:
        client.get("/cluster")
    assert refused.value.status == 401
    assert "not-the-token" not in f"{refused.value} {refused.value!r} {ClientSettings((), 'not-the-token')!r}"


def test_an_unknown_authority_is_refused_at_once(api: FakeApi, tmp_path: Path) -> None:
    with FakeApi(tmp_path / "other") as other:
        settings = ClientSettings(endpoints=(api.endpoint,), token=api.token, ca_file=str(other.files.ca), retry_s=30)
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="certificate verify failed"):
            Client(settings, threading.Event()).get("/cluster")
        assert time.monotonic() - started < 5
    assert api.requests == []


@pytest.mark.parametrize(("status", "page"), [(404, b"<html>"), (200, b"welcome"), (200, b"[]"), (301, b"")])
def test_what_is_no_control_plane_is_said_to_be_none(api: FakeApi, status: int, page: bytes) -> None:
    api.faults.forged = (status, page)
    with pytest.raises(ApiError) as refused:
        client_of(api).get(DEMO)
    assert refused.value.code not in ("not_found", "namespace_not_found")
    assert "Flintlock control plane" in str(refused.value)


def test_every_page_of_a_list_is_read(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provider_shim.client.PAGE_LIMIT", 3)
    for number in range(8):
        api.store.put(("Host", "", f"h{number}"), {"labels": {"odd": str(number % 2)}}, {})
    client = client_of(api)
    assert [each["name"] for each in client.pages("/hosts")] == [f"h{number}" for number in range(8)]
    assert len(api.calls("GET")) == 3
    assert [each["name"] for each in client.pages("/hosts", {"label": ["odd=1"]})] == ["h1", "h3", "h5", "h7"]


def test_a_netrc_does_not_replace_the_token(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert client_of(api).get("/cluster").status == 200


def test_sixty_four_threads_share_one_client(api: FakeApi) -> None:
    api.store.put(("Namespace", "", "demo"), {"spec": {}}, {})
    client = client_of(api)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(client.get(DEMO).body["name"])) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == ["demo"] * 64
