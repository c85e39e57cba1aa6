"""A small client of the HTTP API.

Endpoints are tried in turn; a request that may be repeated is repeated while the cluster has no leader (503), this
client asks too much (429 `rate_limited`) or an endpoint does not answer, with the same Idempotency-Key, until a
deadline. What may not be repeated blindly (a
restart) is only repeated when it was certainly never sent or never committed.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import requests
from urllib3.exceptions import NewConnectionError

from controlplane.cli.errors import CliError, ProblemError
from controlplane.cli.values import Json, mapping

Params = Mapping[str, str | int | Sequence[str]]
API = "/api/v2"
CONNECT_TIMEOUT_S = 3.0
_RETRY_AFTER_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Json
    headers: Mapping[str, str]
    text: str = ""
    """The body when it is not JSON."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    id: str | None
    event: str
    data: str


class Client:
    """`endpoints` are base URLs such as `https://127.0.0.1:7301`; `ca_file` None trusts the system's authorities."""

    def __init__(
        self, endpoints: Sequence[str], token: str, ca_file: Path | None, *, retry_for_s: float = 30.0
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._current = 0
        self._retry_for_s = retry_for_s
        self._session = requests.Session()
        # A proxy, .netrc or CA bundle from the environment must not replace what the user configured for this cluster.
        self._session.trust_env = False
        self._session.verify = str(ca_file) if ca_file is not None else True
        self._session.headers.update({"Authorization": f"Bearer {token}", "User-Agent": "flintctl"})

    def get(self, path: str, params: Params | None = None, *, read_timeout_s: float = 30.0) -> Answer:
        """Raises ProblemError for every answer of 400 and above, CliError when nobody answers."""
        return self.request("GET", path, params=params, read_timeout_s=read_timeout_s)

    def find(self, path: str, params: Params | None = None) -> Json | None:
        """The object at `path`, or None when it does not exist."""
        try:
            return self.get(path, params).body
        except ProblemError as problem:
            if problem.code in ("not_found", "namespace_not_found"):
                return None
            raise

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        read_timeout_s: float = 30.0,
    ) -> Answer:
        """One call with retries. Raises ProblemError for an answer of 400 and above, CliError when nobody answers."""
        sent_headers = dict(headers or {})
        if method in ("PUT", "POST"):
            sent_headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        give_up = time.monotonic() + self._retry_for_s
        silent = 0
        while True:
            endpoint = self._endpoints[self._current]
            wait_s = 0.2
            try:
                response = self._session.request(
                    method,
                    f"{endpoint}{API}{path}",
                    params=dict(params or {}),
                    json=body,
                    headers=sent_headers,
                    timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
                    allow_redirects=False,
                )
            except requests.exceptions.SSLError as error:
                raise _untrusted(endpoint, error) from None
            except (requests.ConnectionError, requests.Timeout) as error:
                if not repeatable and not _never_sent(error):
                    raise CliError(
                        f"{endpoint} stopped answering: it is not known whether the request was carried out",
                        hint="look at the object (`flintctl vm show`) before you repeat it",
                    ) from None
                silent += 1
                if silent >= 2 * len(self._endpoints) and (_never_sent(error) or time.monotonic() > give_up):
                    raise self._nobody(error) from None
                if silent % len(self._endpoints) != 0:
                    wait_s = 0.0
                self._current = (self._current + 1) % len(self._endpoints)
            else:
                answer = _answer(response)
                if answer.status < 400:
                    return answer
                problem = ProblemError(answer.status, answer.body)
                unsure = problem.code == "outcome_unknown" and not repeatable
                passing = answer.status == 503 or problem.code == "rate_limited"
                if not passing or unsure or problem.code == "host_unreachable" or time.monotonic() > give_up:
                    raise problem
                wait_s = _retry_after_s(answer.headers)
                self._current = (self._current + 1) % len(self._endpoints)
            time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def download(self, method: str, path: str, *, body: Json | None = None, limit: int) -> bytes:
        """The bytes that one endpoint answers, tried once. Raises ProblemError, CliError; also for over `limit`."""
        endpoint = self._endpoints[self._current]
        try:
            with self._session.request(
                method,
                f"{endpoint}{API}{path}",
                json=body,
                stream=True,
                timeout=(CONNECT_TIMEOUT_S, 60.0),
                allow_redirects=False,
            ) as response:
                if response.status_code >= 400:
                    raise ProblemError(response.status_code, _answer(response).body)
                found = bytearray()
                for part in response.iter_content(1 << 18):
                    found += part
                    if len(found) > limit:
                        raise CliError(f"{endpoint}: the answer is over {limit} bytes")
                return bytes(found)
        except requests.exceptions.SSLError as error:
            raise _untrusted(endpoint, error) from None
        except requests.RequestException as error:
            raise self._nobody(error) from None

    def events(self, path: str, params: Params, *, wanted: Callable[[], bool] = lambda: True) -> Iterator[ServerEvent]:
        """Server-sent events until the connection ends, or `wanted` says no; it is asked at every heartbeat. Raises
        ProblemError, also for why the node ends the stream, and CliError."""
        endpoint = self._endpoints[self._current]
        try:
            # Whoever comes back after the end of one stream is better off at another node.
            self._current = (self._current + 1) % len(self._endpoints)
            with self._session.get(
                f"{endpoint}{API}{path}", params=dict(params), stream=True, timeout=(CONNECT_TIMEOUT_S, 30.0)
            ) as response:
                if response.status_code >= 400:
                    raise ProblemError(response.status_code, _answer(response).body)
                lines = response.iter_lines(chunk_size=1, decode_unicode=True)
                for event in parse_events(takewhile(lambda _: wanted(), lines)):
                    if event.event == "error":
                        problem = mapping(json.loads(event.data))
                        raise ProblemError(int(problem.get("status") or 500), problem)
                    yield event
        except requests.exceptions.SSLError as error:
            raise _untrusted(endpoint, error) from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise self._nobody(error) from None

    def _nobody(self, error: Exception) -> CliError:
        tried = ", ".join(self._endpoints)
        why = "connection refused or unreachable" if _never_sent(error) else "no answer in time"
        return CliError(
            f"no control-plane node answers at {tried}: {why}",
            hint="is the cluster up? `flintctl dev status` shows a local one; --endpoint or FLINTLOCK_ENDPOINTS "
            "names another",
        )


def parse_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """The event stream format of the HTML standard, as far as our API uses it."""
    event_id: str | None = None
    event, data = "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(id=event_id, event=event, data="\n".join(data))
            event, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            event_id = value
        elif field == "event":
            event = value
        elif field == "data":
            data.append(value)


def _answer(response: requests.Response) -> Answer:
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if content_type in ("application/json", "application/problem+json"):
        try:
            return Answer(response.status_code, mapping(response.json()), response.headers)
        except requests.JSONDecodeError:
            pass
    if response.status_code >= 400 or content_type != "text/plain":
        detail = f"{response.url} answered {response.status_code} with something that is not this API's JSON"
        hint = "does the endpoint name a Flintlock control-plane node?"
        status = response.status_code if response.status_code >= 400 else 502
        return Answer(status, {"code": "not_this_api", "detail": detail, "hint": hint}, response.headers)
    response.encoding = "utf-8"
    return Answer(response.status_code, {}, response.headers, response.text)


def _retry_after_s(headers: Mapping[str, str]) -> float:
    try:
        return min(max(float(headers.get("Retry-After", "1")), 0.1), _RETRY_AFTER_LIMIT_S)
    except ValueError:
        return 1.0


def _never_sent(error: Exception) -> bool:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError)


def _untrusted(endpoint: str, error: Exception) -> CliError:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" not in text:
        return CliError(f"{endpoint}: TLS failed: {text.rpartition(': ')[2]}", hint="is it an HTTPS endpoint?")
    return CliError(
        f"{endpoint}: its certificate was not issued by an authority that you trust",
        hint="name the cluster's authority with --ca-file or FLINTLOCK_CA_FILE",
    )
