"""OpenID Connect issuers for tests: a real server in its own process, and one whose every answer a test can bend."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from support.cluster import within
from support.ports import free_ports

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
AUDIENCE = "flintlock"


@contextmanager
def oidc_server(users: Mapping[str, Mapping[str, object]], *, max_age_s: int = 3600) -> Iterator[str]:
    """A served provider that knows `users`, by subject with their claims; gives its issuer."""
    (port,) = free_ports(1)
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "-p", str(port), "-e", str(max_age_s)]
    for subject, claims in users.items():
        command += ["--user-claims", json.dumps({"sub": subject, **claims})]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # By its name: the provider takes its own name from the request, and trusts this one.
    issuer = f"http://localhost:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{issuer}/jwks", timeout=1).ok
        except requests.ConnectionError:
            return False

    try:
        within(20, lambda: answers() or None, "the issuer answers")
        yield issuer
    finally:
        process.kill()
        process.wait()


def log_in(authorization_url: str, subject: str) -> str:
    """What a person does in the browser: say who he is and let it go on. Gives where the browser is sent."""
    answer = requests.post(authorization_url, data={"sub": subject}, allow_redirects=False, timeout=10)
    assert answer.status_code in (302, 303), answer.text
    return answer.headers["Location"]


def id_token(issuer: str, subject: str, *, audience: str = AUDIENCE) -> str:
    """An ID token of `oidc_server` by the authorization code flow."""
    redirect = "http://127.0.0.1:1/callback"
    asked = {
        "response_type": "code",
        "client_id": audience,
        "redirect_uri": redirect,
        "scope": "openid profile email",
        "nonce": str(time.time_ns()),
    }
    location = log_in(f"{issuer}/oauth2/authorize?{urlencode(asked)}", subject)
    (code,) = parse_qs(urlsplit(location).query)["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "client_id": audience}
    answer = requests.post(f"{issuer}/oauth2/token", data={**form, "client_secret": "any"}, timeout=10)
    return answer.json()["id_token"]


@dataclass
class Issuer:
    """Signs and publishes what it is told."""

    url: str = ""
    keys: dict[str | None, PrivateKey] = field(default_factory=dict)
    key_set: Any = None
    """Instead of the keys' own."""
    discovery: dict[str, Any] = field(default_factory=dict)
    """Besides what is right, or instead."""
    granted: Any = None
    """What the token endpoint answers; None: a refusal."""
    forms: list[dict[str, str]] = field(default_factory=list)
    """That it was sent."""
    drip_s: float = 0.0
    """How long it takes for each byte."""
    down: bool = False
    asked: list[str] = field(default_factory=list)
    """Paths, in order."""

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": self.url, "sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 300, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, key_id: str | None = "one", *, algorithm: str = "RS256", headers: Any = None, **changes: Any
    ) -> str:
        return jwt.encode(
            self.claims(**changes),
            self.keys[key_id],
            algorithm=algorithm,
            headers={**({"kid": key_id} if key_id is not None else {}), **(headers or {})},
        )

    def document(self, path: str) -> Any:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "token_endpoint": f"{self.url}/token",
                **self.discovery,
            }
        if path == "/keys":
            return (
                self.key_set if self.key_set is not None else {"keys": [jwk(k, each) for k, each in self.keys.items()]}
            )
        return None

    @property
    def fetches(self) -> int:
        return self.asked.count("/.well-known/openid-configuration")


def jwk(key_id: str | None, key: PrivateKey) -> dict[str, Any]:
    match key:
        case rsa.RSAPrivateKey():
            document = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            document = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ed25519.Ed25519PrivateKey():
            document = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**document, **({"kid": key_id} if key_id is not None else {})}


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@contextmanager
def bendable_issuer() -> Iterator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = issuer.document(self.path)
            if isinstance(document, str):
                self.send_response(302)
                self.send_header("Location", document)
                self.end_headers()
                return
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(500 if issuer.down else 404 if document is None else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for part in [data[at : at + 1] for at in range(len(data))] if issuer.drip_s else [data]:
                time.sleep(issuer.drip_s)
                with suppress(OSError):
                    self.wfile.write(part)

        def do_POST(self) -> None:
            sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            issuer.forms.append({name: values[0] for name, values in sent.items()})
            refusal = {"error": "invalid_grant", "error_description": "Spent."}
            data = json.dumps(refusal if issuer.granted is None else issuer.granted).encode()
            self.send_response(400 if issuer.granted is None else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
