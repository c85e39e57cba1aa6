"""Documents of an issuer, fetched: bounded in size and time, without redirects, proxies and the environment."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import requests
from urllib3.exceptions import HTTPError

from controlplane.identity.oidc.settings import checked_url

MAX_BYTES = 256 * 1024
TIMEOUT_S = 5.0
_CHUNK = 16 * 1024

Json = dict[str, Any]


class FetchError(Exception):
    """The issuer gives no such document; the message says why."""


def discover(issuer: str, ca_file: Path | None) -> Json:
    """What an issuer says of itself. Raises FetchError."""
    document = fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration", ca_file)
    if document.get("issuer") != issuer:
        raise FetchError(f"{issuer} says that it is another issuer")
    return document


def endpoint(document: Json, name: str) -> str:
    """A URL of a discovered document. Raises FetchError."""
    url = document.get(name)
    try:
        return checked_url(str(url))
    except ValueError as error:
        raise FetchError(f"{name} of {document.get('issuer')}: {error}") from None


def fetch(url: str, ca_file: Path | None) -> Json:
    """The JSON object at `url`. Blocks, for little more than twice TIMEOUT_S. Raises FetchError."""
    status, document = _ask("GET", url, ca_file)
    if status != 200:
        raise FetchError(f"{url} answers {status}")
    return document


def post_form(
    url: str, form: Mapping[str, str], ca_file: Path | None, *, secret: str | None = None
) -> tuple[int, Json]:
    """Status and JSON object that a form is answered with; a refusal has one, too. Raises FetchError.

    `secret`: of the client that the form's `client_id` names, sent as every issuer takes it (RFC 6749, 2.3.1).
    """
    credentials = None
    if secret is not None:
        credentials = (quote(form["client_id"], safe=""), quote(secret, safe=""))
        form = {name: value for name, value in form.items() if name != "client_id"}
    return _ask("POST", url, ca_file, form, credentials)


def _ask(
    method: str,
    url: str,
    ca_file: Path | None,
    form: Mapping[str, str] | None = None,
    credentials: tuple[str, str] | None = None,
) -> tuple[int, Json]:
    give_up = time.monotonic() + TIMEOUT_S
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(ca_file) if ca_file is not None else True
        try:
            with session.request(
                method, url, data=form, auth=credentials, timeout=TIMEOUT_S, allow_redirects=False, stream=True
            ) as answer:
                status, data = answer.status_code, b""
                # What is there by now, so that an answer that trickles in is noticed.
                while chunk := answer.raw.read1(_CHUNK, decode_content=True):
                    data += chunk
                    if len(data) > MAX_BYTES:
                        raise FetchError(f"{url} answers more than {MAX_BYTES} bytes")
                    if time.monotonic() > give_up:
                        raise FetchError(f"{url} takes longer than {TIMEOUT_S:g} s")
        except (requests.RequestException, HTTPError, OSError) as error:
            raise FetchError(f"{url} cannot be reached: {type(error).__name__}") from None
    if status >= 500 or 300 <= status < 400:
        return status, {}
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        raise FetchError(f"{url} answers no JSON") from None
    if not isinstance(document, dict):
        raise FetchError(f"{url} answers no JSON object")
    return status, cast("Json", document)
