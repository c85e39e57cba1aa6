"""Logging in at an OpenID Connect issuer with a browser: the authorization code flow with PKCE (RFC 7636, RFC 8252).

The browser comes back to a server on loopback that takes one answer: the one with the state that was sent. Whoever else
gets at the code cannot use it without the verifier, which never leaves this process but for the issuer. The ID token
is checked by the nodes; here only that it is the one which was asked for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from pydantic import BaseModel, ConfigDict, Field

from controlplane.cli.errors import CliError
from controlplane.identity.oidc import fetch
from controlplane.identity.oidc.fetch import FetchError, Json
from controlplane.identity.oidc.settings import Url

WAIT_S = 300.0
"""For the person at the browser."""
_CALLBACK = "/callback"
_REFUSED = "log in again: `flintctl login`"


class OidcClient(BaseModel):
    """As whom to log in where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Url
    client_id: str
    scopes: list[str] = ["openid", "profile", "email", "offline_access"]
    ca_file: Path | None = None
    client_secret: str | None = Field(default=None, repr=False)
    """Of issuers that give programs on people's machines one, and want it although it is none."""


class Tokens(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id_token: str
    refresh_token: str | None = None
    expires_at: int
    """Of the ID token, in seconds since the Unix epoch."""


def log_in(client: OidcClient, show: Callable[[str], None], *, port: int = 0, wait_s: float = WAIT_S) -> Tokens:
    """Let a person log in at the URL that `show` gets. `port` is loopback's; 0 is any. Raises CliError."""
    try:
        document = fetch.discover(client.issuer, client.ca_file)
        authorization, token_url = (fetch.endpoint(document, f"{name}_endpoint") for name in ("authorization", "token"))
    except FetchError as error:
        raise CliError(str(error)) from None
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    with _Callback(port, state) as callback:
        asked = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": callback.url,
            "scope": " ".join(client.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        show(f"{authorization}?{urlencode(asked)}")
        answer = callback.wait(wait_s)
        redirect = callback.url
    if "code" not in answer:
        reason = answer.get("error_description") or answer.get("error") or "it gave no code"
        raise CliError(f"{client.issuer} refused the login: {reason}")
    if answer.get("iss", client.issuer) != client.issuer:
        raise CliError("the answer is from another issuer than the one that was asked")
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": redirect,
        "client_id": client.client_id,
        "code_verifier": verifier,
    }
    return _tokens(client, _granted(client, token_url, form), nonce=nonce)


def refreshed(client: OidcClient, refresh_token: str) -> Tokens:
    """The next tokens. Raises CliError."""
    try:
        url = fetch.endpoint(fetch.discover(client.issuer, client.ca_file), "token_endpoint")
    except FetchError as error:
        raise CliError(str(error)) from None
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": client.client_id}
    given = _granted(client, url, form)
    return _tokens(client, {"refresh_token": refresh_token, **given}, nonce=None)


def _granted(client: OidcClient, url: str, form: dict[str, str]) -> Json:
    try:
        status, document = fetch.post_form(url, form, client.ca_file, secret=client.client_secret)
    except FetchError as error:
        raise CliError(str(error)) from None
    if status != 200:
        reason = document.get("error_description") or document.get("error") or f"it answers {status}"
        raise CliError(f"{client.issuer} gives no token: {reason}", hint=_REFUSED)
    return document


def _tokens(client: OidcClient, given: Json, *, nonce: str | None) -> Tokens:
    id_token, refresh_token = given.get("id_token"), given.get("refresh_token")
    if not isinstance(id_token, str):
        raise CliError(f"{client.issuer} gives no ID token", hint=_REFUSED)
    try:
        # The nodes verify it; that it comes from the issuer, the connection says.
        claims: Json = jwt.decode(id_token, options={"verify_signature": False})
        ends = int(claims["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        raise CliError(f"{client.issuer} gives an ID token that is none") from None
    if claims.get("iss") != client.issuer or (nonce is not None and claims.get("nonce") != nonce):
        raise CliError("the ID token is not the one that was asked for")
    return Tokens(
        id_token=id_token, refresh_token=refresh_token if isinstance(refresh_token, str) else None, expires_at=ends
    )


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class _Callback:
    """Where the browser is sent back to. Raises CliError for a port that is taken."""

    def __init__(self, port: int, state: str) -> None:
        answers: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                good = parts.path == _CALLBACK and hmac.compare_digest(query.get("state", "").encode(), state.encode())
                if good:
                    answers.append(query)
                text = "You can close this window and go back to the terminal." if good else "This is no answer."
                self.send_response(200 if good else 400)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the path holds the code."""

        try:
            self._server = HTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise CliError(f"--port: {port}: {error.strerror}") from None
        self._answers = answers
        self.url = f"http://127.0.0.1:{self._server.server_port}{_CALLBACK}"

    def __enter__(self) -> _Callback:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self, wait_s: float) -> dict[str, str]:
        """The query that the browser came back with. Raises CliError."""
        give_up = time.monotonic() + wait_s
        while not self._answers:
            self._server.timeout = give_up - time.monotonic()
            if self._server.timeout <= 0:
                raise CliError(f"nobody logged in within {wait_s:.0f} s")
            self._server.handle_request()
        return self._answers[0]
