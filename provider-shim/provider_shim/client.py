"""The HTTP client of the control plane's API v2.

Endpoints are tried in turn: any node answers, so a node that does not is skipped and tried again later. A request is
repeated, with growing pauses, when the connection failed or the API said 503 (no leader, outcome unknown) or 429 (too
many requests): with the same Idempotency-Key, so that a write whose answer was lost is not made twice. Every request
has a deadline and ends early when the user interrupts Terraform. `requests` is imported on first use, after the plugin
handshake.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from provider_shim import __version__
from provider_shim.framework.types import as_list, as_object
from provider_shim.log import log

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
PAGE_LIMIT: Final = 1000
MAX_TOKEN_CHARS: Final = 64 * 1024
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 3.0
_POOL: Final = 64


@dataclass(frozen=True, slots=True)
class ClientSettings:
    endpoints: tuple[str, ...]
    token: str = field(repr=False)
    token_file: str | None = None
    """Where the token is read again, since what is there may have ended meanwhile."""
    ca_file: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    retry_s: float = 30.0
    """How long a request without a deadline of its own is repeated."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class ProblemError:
    """One entry of a problem's `errors`: a JSON pointer into what was sent, and what is wrong there."""

    pointer: str
    message: str


class ApiError(Exception):
    """The API refused: an RFC 9457 problem."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code") or f"http_{status}")
        self.title = str(problem.get("title") or f"HTTP {status}")
        self.detail = str(problem.get("detail") or "")
        self.hint = str(problem.get("hint") or "")
        self.problem = problem
        listed: Any = problem.get("errors")
        self.errors = tuple(
            ProblemError(str(each.get("pointer") or ""), str(each.get("message") or ""))
            for each in map(as_object, as_list(listed) or ())
            if each is not None
        )
        super().__init__(f"{self.status} {self.code}: {self.title}. {self.detail}".strip())


class UnreachableError(Exception):
    """No endpoint gave a useful answer in time: nothing is known about what exists."""

    def __init__(self, message: str, refusal: ApiError | None = None) -> None:
        """`refusal`: nodes did answer, and this is what the last one said."""
        super().__init__(message)
        self.refusal = refusal


class CancelledError(Exception):
    """The user interrupted Terraform."""


class Client:
    """Thread-safe; one for the whole process."""

    def __init__(self, settings: ClientSettings, cancel: threading.Event) -> None:
        self._settings = settings
        self._cancel = cancel
        self._lock = threading.Lock()
        self._session: Any = None
        self._waiting: Any = None
        self._current = 0

    def get(
        self, path: str, *, query: Mapping[str, Any] | None = None, deadline: float | None = None, wait_s: float = 0
    ) -> Answer:
        """`deadline` is a `time.monotonic()` instant; `wait_s` is how long the API may hold the request (long poll)."""
        return self.send("GET", path, query=query, deadline=deadline, wait_s=wait_s)

    def pages(self, path: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Every item of a list."""
        asked: dict[str, Any] = {"limit": PAGE_LIMIT, **(query or {})}
        while True:
            body = self.get(path, query=asked).body
            yield from body["items"]
            if not body.get("continue"):
                return
            asked["continue"] = body["continue"]

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
        wait_s: float = 0,
        interruptible: bool = True,
    ) -> Answer:
        """One request, repeated until it is answered.

        Raises ApiError for any answer of 400 or above that repeating cannot mend, UnreachableError at the deadline,
        CancelledError when the user interrupts, unless it is not `interruptible`: what has to be done then as well.
        """
        cancel = self._cancel if interruptible else threading.Event()
        end = time.monotonic() + self._settings.retry_s if deadline is None else deadline
        data = None if body is None else json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
        pause = _FIRST_PAUSE_S
        while True:
            if cancel.is_set():
                raise CancelledError("Terraform was interrupted")
            endpoint = self._endpoint()
            asked_pause, refused = 0.0, None
            try:
                answer = self._once(endpoint, method, path, data, query, headers, end, wait_s)
                if answer.status not in (429, 503):
                    return _checked(answer)
                problem = _problem(answer)
                if problem.code == "host_unreachable" or (answer.status == 429 and problem.code != "rate_limited"):
                    raise problem
                reason, refused = str(problem), problem
                asked_pause = _retry_after_s(answer)
            except self._connection_errors() as failure:
                reason = _describe(failure)
                if _is_hopeless(failure):
                    raise UnreachableError(f"{endpoint}: {reason}") from failure
            log("warn", f"{method} {path}: {endpoint} gave no answer, trying again", reason=reason)
            self._skip(endpoint)
            remaining = end - time.monotonic()
            if remaining <= 0:
                tried = ", ".join(self._settings.endpoints)
                raise UnreachableError(f"no answer from {tried}: {reason}", refused)
            # Half of the pause is random, so that many providers do not come back at the same instant.
            chosen = min(max(pause, asked_pause) * random.uniform(0.5, 1.0), remaining)  # noqa: S311 - jitter
            if cancel.wait(chosen):
                raise CancelledError("Terraform was interrupted")
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _endpoint(self) -> str:
        return self._settings.endpoints[self._current % len(self._settings.endpoints)]

    def _skip(self, endpoint: str) -> None:
        """Go on to the next one, unless another thread already did."""
        with self._lock:
            if self._endpoint() == endpoint:
                self._current += 1

    def _once(
        self,
        endpoint: str,
        method: str,
        path: str,
        data: bytes | None,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        end: float,
        wait_s: float,
    ) -> Answer:
        settings = self._settings
        sent = {
            "Accept": "application/json",
            "Authorization": f"Bearer {self._token()}",
            "User-Agent": f"terraform-provider-flintlock/{__version__}",
            **(headers or {}),
        }
        if data is not None:
            sent["Content-Type"] = "application/json"
        patience = max(min(ANSWER_TIMEOUT_S, end - time.monotonic()), 1.0) + wait_s
        certificate = (settings.client_certificate, settings.client_key) if settings.client_certificate else None
        with self._open_session(waits=wait_s > 0).request(
            method,
            endpoint.rstrip("/") + "/api/v2" + path,
            params=query,
            data=data,
            headers=sent,
            timeout=(CONNECT_TIMEOUT_S, patience),
            verify=settings.ca_file or True,
            cert=certificate,
            allow_redirects=False,
            stream=True,
        ) as response:
            raw = _bounded(response)
            return Answer(response.status_code, response.headers, _parse(raw))

    def _token(self) -> str:
        """What is in the file now; what was there before while it cannot be read."""
        if self._settings.token_file is None:
            return self._settings.token
        try:
            return read_token(self._settings.token_file) or self._settings.token
        except (OSError, ValueError) as problem:
            log("warn", "the token file cannot be read", reason=type(problem).__name__)
            return self._settings.token

    def interrupt(self) -> None:
        """End what only waits, at once, and for good. Writes that are under way get their answer."""
        with self._lock:
            if self._waiting is not None:
                self._waiting.get_adapter("https://").end()

    def _open_session(self, *, waits: bool) -> Any:
        """The connections for requests, or those for long polls, which are apart so that they can be ended."""
        with self._lock:
            if self._session is None:
                from requests.adapters import HTTPAdapter

                from provider_shim.long_polls import LongPolls

                self._session = _session(HTTPAdapter(pool_connections=8, pool_maxsize=_POOL))
                self._waiting = _session(LongPolls(pool_connections=8, pool_maxsize=_POOL))
            return self._waiting if waits else self._session

    @staticmethod
    def _connection_errors() -> tuple[type[Exception], ...]:
        import requests

        return (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


def read_token(path: str) -> str:
    """The token in a file. Raises OSError and ValueError."""
    with Path(path).open(encoding="ascii") as file:
        return file.read(MAX_TOKEN_CHARS).strip()


def segment(text: str) -> str:
    """A name as one segment of a path."""
    return quote(text, safe="")


def check_endpoint(text: str) -> str | None:
    """What is wrong with an endpoint, or None."""
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        return f'"{text}" is not an https:// address such as https://10.0.0.1:8443'
    if parts.path.strip("/") or parts.query or parts.fragment:
        return f'"{text}" must end after the port: the API path is added to it'
    return None


def _session(adapter: Any) -> Any:
    import requests

    session = requests.Session()
    session.mount("https://", adapter)
    # A callable keeps a .netrc from replacing our Authorization header.
    session.auth = _unchanged
    return session


def _unchanged(request: Any) -> Any:
    return request


def _bounded(response: Any) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_content(65536):
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise UnreachableError(f"the answer is larger than {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _parse(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", errors="replace")


def _problem(answer: Answer) -> ApiError:
    body = as_object(answer.body)
    if body is None:
        body = {
            "title": f"HTTP {answer.status}, not from a Flintlock control plane",
            "detail": str(answer.body or "")[:200],
        }
    return ApiError(answer.status, body)


def _checked(answer: Answer) -> Answer:
    if answer.status >= 300:
        raise _problem(answer)
    if not isinstance(answer.body, dict):
        raise ApiError(
            answer.status, {"code": "not_the_api", "title": "Not a Flintlock control plane", "detail": "no JSON object"}
        )
    return answer


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isdecimal() else 0.0


def _describe(failure: Exception) -> str:
    """The innermost reason, without the layers of urllib3."""
    innermost: BaseException = failure
    while innermost.args and isinstance(innermost.args[0], BaseException):
        innermost = innermost.args[0]
    reason = getattr(innermost, "reason", None)
    text = str(reason if isinstance(reason, BaseException) else innermost)
    return text.rsplit(">: ", 1)[-1] or type(failure).__name__


def _is_hopeless(failure: Exception) -> bool:
    """A certificate that does not verify will not verify in a second either."""
    import requests

    return isinstance(failure, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(failure)
