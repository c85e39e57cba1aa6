"""How a notice reaches whoever acts on it: a signed request, or a program with the notice on its standard input.

The signature is HMAC-SHA256 over the time and the body, in `Flintlock-Signature: t=SECONDS,v1=HEX`. A receiver computes
it anew, compares in constant time, and refuses what is older than a few minutes. Every attempt is signed anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shlex
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import urlsplit

import requests

from controlplane.cli.errors import CliError
from controlplane.cli.values import Json

SIGNATURE = "Flintlock-Signature"
_TIMEOUT_S = (3.0, 10.0)
_LEAST_SECRET_BYTES = 16
_MOST_SECRET_BYTES = 4096
_WORTH_REPEATING = frozenset({408, 425, 429})


class DeliveryError(Exception):
    """It did not arrive, and may when it is tried again."""


class Delivery(ABC):
    @abstractmethod
    def send(self, notice: Json) -> None:
        """Raises DeliveryError, or CliError where trying again is of no use."""


class Webhook(Delivery):
    def __init__(self, url: str, secret: bytes) -> None:
        """Raises CliError unless `url` is https (or http to this machine)."""
        parts = urlsplit(url)
        local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not parts.hostname or not (parts.scheme == "https" or local):
            raise CliError(f"--webhook {url}: is not an https:// address")
        if parts.username is not None or parts.password is not None:
            raise CliError("--webhook: a URL with credentials is shown in lists of processes", hint="use the signature")
        self._url = url
        self._secret = secret

    def send(self, notice: Json) -> None:
        body = json.dumps(notice, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "flintctl",
            SIGNATURE: signature(self._secret, int(time.time()), body),
        }
        try:
            with requests.post(
                self._url,
                data=body,
                headers=headers,
                timeout=_TIMEOUT_S,
                allow_redirects=False,
                stream=True,  # what it answers is of no interest, however long
                auth=_unchanged,
            ) as answer:
                status = answer.status_code
        except requests.RequestException as error:
            raise DeliveryError(f"no answer: {type(error).__name__}") from None
        if 300 <= status < 500 and status not in _WORTH_REPEATING:
            raise CliError(f"--webhook: the receiver answers {status}", hint="check the address and the secret")
        if status >= 300:
            raise DeliveryError(f"the receiver answers {status}")


class Program(Delivery):
    def __init__(self, command: str, timeout_s: float) -> None:
        """`command` is split as a shell would, and run without one. Raises CliError."""
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise CliError(f"--exec: {error}") from None
        if not self._command:
            raise CliError("--exec: names no program")
        self._timeout_s = timeout_s

    def send(self, notice: Json) -> None:
        try:
            done = subprocess.run(
                self._command, input=json.dumps(notice).encode(), timeout=self._timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise DeliveryError(f"{self._command[0]} did not end within {self._timeout_s:g} s") from None
        except OSError as error:
            raise CliError(f"--exec: {self._command[0]} cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            raise DeliveryError(f"{self._command[0]} ended with {done.returncode}")


def signature(secret: bytes, now_s: int, body: bytes) -> str:
    """The header's value: the time in seconds since 1970, and the MAC in hex."""
    mac = hmac.new(secret, b"%d." % now_s + body, hashlib.sha256).hexdigest()
    return f"t={now_s},v1={mac}"


def read_secret(path: Path) -> bytes:
    """What is in the file, without white space around it. Raises CliError."""
    try:
        with path.open("rb") as file:
            secret = file.read(_MOST_SECRET_BYTES + 1).strip()
    except OSError as error:
        raise CliError(f"--secret-file {path}: cannot be read: {error.strerror}") from None
    if not _LEAST_SECRET_BYTES <= len(secret) <= _MOST_SECRET_BYTES:
        raise CliError(f"--secret-file {path}: must hold {_LEAST_SECRET_BYTES} to {_MOST_SECRET_BYTES} bytes")
    return secret


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps a .netrc from adding credentials."""
    return request
