"""The HTTP client against a real HTTPS server that misbehaves on demand."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.client import Client, ServerEvent, parse_events
from controlplane.cli.errors import CliError, ProblemError
from controlplane.identity.authority import Authority
from controlplane.identity.files import TlsFiles


@dataclass
class Script:
    """What the server answers, in order; the last answer is repeated. None hangs up without one."""

    answers: list[tuple[int, dict[str, Any]] | None]
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    content_type: str = ""


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    directory = tmp_path_factory.mktemp("client")
    return Authority.create(directory / "ca", cluster_id="test").issue_server("api", directory / "api")


@pytest.fixture
def script(tls: TlsFiles) -> Iterator[Script]:
    script = Script([(200, {"fine": True})])

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.seen.append((self.command, self.path, dict(self.headers)))
            chosen = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            if chosen is None:
                self.close_connection = True
                return
            status, document = chosen
            body = json.dumps(document).encode()
            self.send_response(status)
            usual = "application/problem+json" if status >= 400 else "application/json"
            self.send_header("Content-Type", script.content_type or usual)
            self.send_header("Content-Length", str(len(body)))
            if status == 503:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the base class's names

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    script.url = f"https://127.0.0.1:{server.server_address[1]}"
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


DEAD = "https://127.0.0.1:9"
NO_LEADER = (503, {"code": "no_leader", "detail": "no leader"})
UNKNOWN = (503, {"code": "outcome_unknown", "detail": "it may have happened"})


def _client(script: Script, tls: TlsFiles, *endpoints: str, retry_for_s: float = 10.0) -> Client:
    return Client(endpoints or [script.url], "flk_x", tls.ca, retry_for_s=retry_for_s)


def test_dead_endpoints_are_skipped(script: Script, tls: TlsFiles) -> None:
    client = _client(script, tls, DEAD, script.url)
    assert client.get("/cluster").body == {"fine": True}
    assert script.seen[0][1] == "/api/v2/cluster"
    assert script.seen[0][2]["Authorization"] == "Bearer flk_x"


def test_repeats_while_there_is_no_leader_with_the_same_key(script: Script, tls: TlsFiles) -> None:
    script.answers = [NO_LEADER, UNKNOWN, None, (200, {"fine": True})]
    assert _client(script, tls).request("PUT", "/hosts/h1", body={}).body == {"fine": True}
    assert len(script.seen) == 4
    assert len({headers["Idempotency-Key"] for _, _, headers in script.seen}) == 1


def test_waits_where_it_asks_too_much_and_for_no_other_429(script: Script, tls: TlsFiles) -> None:
    script.answers = [(429, {"code": "rate_limited", "detail": "slower"}), (200, {"fine": True})]
    assert _client(script, tls).get("/hosts").body == {"fine": True}
    script.answers = [(429, {"code": "too_many_watchers", "detail": "1000 are open"})]
    with pytest.raises(ProblemError, match="1000 are open"):
        _client(script, tls).get("/watch")


def test_two_requests_have_two_keys(script: Script, tls: TlsFiles) -> None:
    client = _client(script, tls)
    client.request("PUT", "/hosts/h1", body={})
    client.request("PUT", "/hosts/h1", body={})
    assert len({headers["Idempotency-Key"] for _, _, headers in script.seen}) == 2


def test_gives_up_at_the_deadline(script: Script, tls: TlsFiles) -> None:
    script.answers = [NO_LEADER]
    started = time.monotonic()
    with pytest.raises(ProblemError, match="no leader"):
        _client(script, tls, retry_for_s=0.5).get("/cluster")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("answer", [UNKNOWN, None], ids=["outcome unknown", "connection lost"])
def test_what_may_not_be_repeated_is_not(
    script: Script, tls: TlsFiles, answer: tuple[int, dict[str, Any]] | None
) -> None:
    script.answers = [answer]
    with pytest.raises(CliError):
        _client(script, tls).request("POST", "/x/actions/restart", repeatable=False)
    assert len(script.seen) == 1


def test_what_may_not_be_repeated_is_when_it_was_certainly_not_done(script: Script, tls: TlsFiles) -> None:
    script.answers = [NO_LEADER, (200, {"fine": True})]
    client = _client(script, tls, DEAD, script.url)
    assert client.request("POST", "/x/actions/restart", repeatable=False).body == {"fine": True}
    assert len(script.seen) == 2


def test_refusals_are_not_repeated(script: Script, tls: TlsFiles) -> None:
    script.answers = [(409, {"code": "host_in_use", "detail": "h1 has microVMs", "hint": "delete them"})]
    with pytest.raises(ProblemError) as caught:
        _client(script, tls).request("DELETE", "/hosts/h1")
    assert caught.value.lines() == ["h1 has microVMs [409 host_in_use]", "hint: delete them"]
    assert len(script.seen) == 1


def test_absent_is_none_and_not_an_error(script: Script, tls: TlsFiles) -> None:
    script.answers = [(404, {"code": "not_found"})]
    assert _client(script, tls).find("/hosts/h1") is None


def test_answers_of_another_server_are_recognized(script: Script, tls: TlsFiles) -> None:
    script.content_type = "text/html"
    with pytest.raises(CliError, match=r"answered 200 with something that is not this API's JSON"):
        _client(script, tls).get("/cluster")


def test_other_authorities_are_not_trusted(script: Script, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", cluster_id="other")
    with pytest.raises(CliError, match="not issued by an authority that you trust"):
        Client([script.url], "t", other.certificate_path).get("/cluster")


def test_environment_does_not_redirect_requests(
    script: Script, tls: TlsFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none"))
    assert _client(script, tls).get("/cluster").body == {"fine": True}


EVENTS = st.lists(
    st.builds(
        ServerEvent,
        id=st.integers(0, 9999).map(str),
        event=st.sampled_from(["added", "modified"]),
        data=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3).map(json.dumps),
    ),
    max_size=5,
)


@given(events=EVENTS)
def test_event_stream_round_trip(events: list[ServerEvent]) -> None:
    lines: list[str] = []
    for event in events:
        lines += [": heartbeat", "", f"id: {event.id}", f"event: {event.event}", f"data: {event.data}", ""]
    assert list(parse_events(iter(lines))) == events
