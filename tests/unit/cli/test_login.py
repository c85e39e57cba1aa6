"""Logging in with a browser, against a real provider; what a stranger at the callback gets; the next token."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from support.issuer import bendable_issuer, oidc_server, rsa_key
from support.issuer import log_in as at_the_issuer

from controlplane.cli import logins, oidc_login
from controlplane.cli.errors import CliError
from controlplane.cli.logins import Login
from controlplane.cli.oidc_login import OidcClient, Tokens, log_in


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with oidc_server({"alice": {"groups": ["web"]}}) as issuer:
        yield issuer


@pytest.fixture
def client(issuer: str) -> OidcClient:
    return OidcClient(issuer=issuer, client_id="flintctl", client_secret="wanted")


def browser(answer: Callable[[str, dict[str, str]], None]) -> Callable[[str], None]:
    """Someone who is shown the URL: `answer` gets it and its query, in another thread."""

    def show(url: str) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        threading.Thread(target=answer, args=(url, query), daemon=True).start()

    return show


def come_back(query: dict[str, str], **answer: str) -> int:
    return requests.get(f"{query['redirect_uri']}?{urlencode(answer)}", timeout=10).status_code


def test_a_login_gives_tokens_and_a_challenge_was_sent(client: OidcClient) -> None:
    seen: dict[str, str] = {}

    def person(url: str, query: dict[str, str]) -> None:
        seen.update(query)
        requests.get(at_the_issuer(url, "alice"), timeout=10)

    tokens = log_in(client, browser(person))
    assert tokens.expires_at > time.time() + 60
    assert (seen["code_challenge_method"], seen["response_type"]) == ("S256", "code")
    assert seen["redirect_uri"].startswith("http://127.0.0.1:")
    assert min(len(seen[name]) for name in ("code_challenge", "state", "nonce")) == 43


def test_the_challenge_is_that_of_rfc_7636() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert oidc_login._challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_an_answer_with_another_state_is_no_answer(client: OidcClient) -> None:
    codes: list[int] = []

    def stranger(url: str, query: dict[str, str]) -> None:
        codes.append(come_back(query, code="stolen", state="guessed"))
        codes.append(come_back(query, code="stolen"))
        codes.append(requests.get(query["redirect_uri"].replace("callback", "other"), timeout=10).status_code)
        requests.get(at_the_issuer(url, "alice"), timeout=10)

    assert log_in(client, browser(stranger)).id_token
    assert codes == [400, 400, 400]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "access_denied", "error_description": "No."}, "refused the login: No."),
        ({}, "it gave no code"),
        ({"code": "made-up"}, "gives no token"),
        ({"code": "x", "iss": "https://another.example"}, "another issuer"),
    ],
)
def test_a_login_that_fails_says_why(client: OidcClient, answer: dict[str, str], words: str) -> None:
    def issuer(_url: str, query: dict[str, str]) -> None:
        come_back(query, state=query["state"], **answer)

    with pytest.raises(CliError, match=words):
        log_in(client, browser(issuer))


def test_nobody_comes_and_nobody_is_there(client: OidcClient) -> None:
    with pytest.raises(CliError, match="nobody logged in within 0 s"):
        log_in(client, lambda _: None, wait_s=0.1)
    with pytest.raises(CliError, match="cannot be reached"):
        log_in(client.model_copy(update={"issuer": "http://127.0.0.1:1"}), lambda _: None)


def test_a_login_is_kept_for_its_owner_alone(client: OidcClient, tmp_path: Path) -> None:
    path = logins.path_of(tmp_path / "flintlock" / "config.yaml", "../odd name")
    assert path.parent == tmp_path / "flintlock" / "logins"
    assert logins.id_token(path) is None
    tokens = log_in(client, browser(lambda url, _: requests.get(at_the_issuer(url, "alice"), timeout=10)))
    logins.save(path, Login(client=client, tokens=tokens))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert logins.id_token(path) == tokens.id_token
    assert logins.forget(path)
    assert not logins.forget(path)


def test_a_token_that_ends_is_replaced_by_the_next_once(tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    with bendable_issuer() as issuer:
        issuer.keys["one"] = rsa_key()
        client = OidcClient(issuer=issuer.url, client_id="flintctl")
        spent = Login(client=client, tokens=Tokens(id_token="old", refresh_token="first", expires_at=int(time.time())))
        logins.save(path, spent)
        issuer.granted = {"id_token": issuer.token(), "refresh_token": "second"}
        with ThreadPoolExecutor(4) as commands:
            given = set(commands.map(logins.id_token, [path] * 4))
        assert given == {issuer.granted["id_token"]}
        assert issuer.forms == [{"grant_type": "refresh_token", "refresh_token": "first", "client_id": "flintctl"}]
        kept = logins.read(path)
        assert kept is not None
        assert kept.tokens.refresh_token == "second"


@pytest.mark.parametrize(
    ("refresh_token", "granted", "words"),
    [
        (None, {}, "has ended"),
        ("spent", None, "gives no token: Spent."),
        ("good", {}, "gives no ID token"),
        ("good", {"id_token": "x.y"}, "is none"),
    ],
)
def test_a_login_that_has_ended_says_so(refresh_token: str | None, granted: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    with bendable_issuer() as issuer:
        issuer.granted = granted
        client = OidcClient(issuer=issuer.url, client_id="flintctl")
        tokens = Tokens(id_token="old", refresh_token=refresh_token, expires_at=int(time.time()))
        logins.save(path, Login(client=client, tokens=tokens))
        before = path.read_bytes()
        with pytest.raises(CliError, match=words):
            logins.id_token(path)
        assert path.read_bytes() == before


def test_a_token_of_another_login_is_not_taken(tmp_path: Path) -> None:
    with bendable_issuer() as issuer:
        issuer.keys["one"] = rsa_key()
        issuer.discovery = {"authorization_endpoint": f"{issuer.url}/authorize"}

        def answers(_url: str, query: dict[str, str]) -> None:
            issuer.granted = {"id_token": issuer.token(nonce="of another")}
            come_back(query, state=query["state"], code="good")

        client = OidcClient(issuer=issuer.url, client_id="flintctl")
        with pytest.raises(CliError, match="not the one that was asked for"):
            log_in(client, browser(answers))
        assert issuer.forms[0]["code_verifier"]
