"""Refusals as RFC 9457 problem documents.

Every refusal of the API is a Problem with a stable `code`, and names the fields it is about by JSON pointer: into the
body (`/spec/vcpu`), or `/query/...`, `/header/...`, and `/name`, `/namespace` for the path. Three facts are never
confused: not found (404), unreachable (503 `host_unreachable`) and unknown (503 `no_leader`, `no_majority`,
`outcome_unknown`). Input is never repeated in an answer, since metadata may hold secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.http.times import iso
from controlplane.machine.outcome import Code, Rejected
from controlplane.model.resources import Meta
from controlplane.model.types import PATTERN_WORDS

TYPE_BASE = "https://flintlock.dev/problems/"
MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 50
_SUBJECT = re.compile(r"^(Input|Value|String|Dictionary|List) should ")
"""How pydantic begins its messages; ours follow the pointer of the field."""


class FieldError(BaseModel):
    model_config = ConfigDict(frozen=True)

    pointer: str = Field(description="JSON pointer to the field; `/query/x` and `/header/x` for parameters.")
    message: str


class Existing(BaseModel):
    """The object that stands in the way of a creation."""

    model_config = ConfigDict(frozen=True)

    uid: str
    created_at: str


class ContactShape(BaseModel):
    """What a node without a leader knows of its own position."""

    model_config = ConfigDict(frozen=True)

    node: str
    leaderless_s: float = Field(description="For how long it has had no leader.")
    age_s: float = Field(description="What was acknowledged elsewhere in the last so many seconds it may not know.")
    hears: list[str] = Field(description="The other voters that it hears.")
    misses: list[str] = Field(description="The other voters that it does not hear.")
    majority: int = Field(description="How many voters have to agree, itself included.")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(frozen=True)

    type: str
    title: str
    status: int
    code: str = Field(description="Stable name of the problem.")
    detail: str
    hint: str = Field(default="", description="What to do about it; may be empty.")
    errors: list[FieldError] = []
    retry_after_s: float | None = None
    request_id: str | None = None
    existing: Existing | None = None
    contact: ContactShape | None = None


class ApiError(Exception):
    """Carries a Problem, and headers of its answer, out of a handler."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = dict(headers or {})


_RETRY_SAFE = "Nothing was changed: repeat the request, here or at another node."
_RETRY_KEYED = "The write may or may not have happened: repeat it with the same Idempotency-Key."

_KNOWN: dict[str, tuple[int, str, str]] = {
    Code.INVALID: (422, "The request is not valid", ""),
    Code.NOT_FOUND: (404, "Not found", ""),
    Code.ALREADY_EXISTS: (
        412,
        "It exists already",
        "Import it, choose another name, or declare without `If-None-Match`.",
    ),
    Code.REVISION_CONFLICT: (412, "It has changed since it was read", "Read it again and use its present revision."),
    Code.REQUIRES_REPLACEMENT: (
        409,
        "The change needs a replacement",
        "Delete the microVM and declare it anew; its ephemeral volumes start from their images.",
    ),
    Code.BEING_DELETED: (
        409,
        "It is being deleted",
        "Wait until it is gone (`?wait_for=gone`), then declare it again.",
    ),
    Code.NAMESPACE_NOT_FOUND: (404, "The namespace does not exist", "Declare the namespace first."),
    Code.NAMESPACE_NOT_EMPTY: (409, "The namespace is not empty", "Delete its microVMs first."),
    Code.POLICY_NOT_FOUND: (422, "The policy does not exist", "Declare the policy first."),
    Code.POLICY_CHANGED: (409, "The policy has changed since", "Make another plan and look at it."),
    Code.POLICY_IN_USE: (409, "The policy is in use", "Remove it from the microVMs that name it first."),
    Code.HOST_NOT_FOUND: (422, "The host does not exist", "Declare the host first."),
    Code.HOST_IN_USE: (409, "The host holds microVMs", "Cordon the host and delete its microVMs first."),
    Code.HOST_NOT_LOST: (
        409,
        "The host is not lost",
        "Only a host that is suspect, detached or fenced can be confirmed as off; see `flintctl host show`.",
    ),
    Code.HELD: (409, "It is held", "Release it with `flintctl release KIND/NAME` once it need not stay."),
    Code.OWNED_BY_GROUP: (409, "It belongs to a group", "Change the group's template, or choose another name."),
    Code.QUOTA_EXCEEDED: (409, "The namespace's quota is used up", "Raise the quota or delete what is not needed."),
    Code.INSUFFICIENT_CAPACITY: (409, "The host has no room", "Ask for less, or free capacity on the host."),
    Code.CONSTRAINT_VIOLATED: (409, "A placement constraint would be violated", ""),
    Code.IDEMPOTENCY_KEY_REUSED: (
        422,
        "The idempotency key was used for another request",
        "Use a new key for a new request; repeat a request with its own key only.",
    ),
    Code.ROLE_NOT_FOUND: (422, "The role does not exist", "Declare the role first, or name a built-in one."),
    Code.ROLE_IN_USE: (409, "The role is in use", "Delete the bindings that give it first."),
    Code.ROLE_BUILT_IN: (409, "The role is built in", ""),
    Code.JOIN_REFUSED: (401, "The join token does not let it in", "Ask for another one: `flintctl token create`."),
    Code.AUTHORITY_IN_USE: (409, "The authority is in use", "`flintctl ca status` tells who depends on it."),
    Code.CERTIFICATE_REVOKED: (403, "The certificate is revoked", "Join again: `flintctl token create`."),
    Code.STALE: (409, "Decided from a state that has changed since", "Read again and repeat."),
    "unauthenticated": (401, "Authentication is required", "Send `Authorization: Bearer TOKEN` with a valid token."),
    "forbidden": (403, "It is not allowed", "`flintctl auth whoami` shows what you were given."),
    "method_not_allowed": (405, "The method is not allowed here", ""),
    "not_placed": (409, "The microVM has no host", "See `.../why` for what keeps it from being placed."),
    "membership_refused": (
        409,
        "The members cannot be changed so now",
        "Nothing was changed. `flintctl raft status` shows the members and what keeps them.",
    ),
    "request_timeout": (408, "The body did not arrive in time", ""),
    "compacted": (410, "That revision is no longer remembered", "List again, then watch from the list's revision."),
    "too_large": (413, "The request is too large", "Split it into several requests."),
    "unsupported_media_type": (415, "The body is not JSON", "Send `Content-Type: application/json`."),
    "too_many_watchers": (429, "Too many watchers at this node", "Watch at another node, or try again later."),
    "rate_limited": (429, "Too many requests", "Nothing was done: repeat the request after the time that is named."),
    "too_many_snapshots": (429, "Too many snapshots are being read", "Wait until one is done, or ask another node."),
    "too_many_downloads": (429, "Too many downloads from this node", "Try again later, or at another node."),
    "snapshot_gone": (410, "That snapshot is not held any more", "Take another one: chunks you have are still good."),
    "too_slow": (429, "The watcher is too slow", "Watch again from the last revision that was seen."),
    "no_authority": (
        409,
        "The cluster signs no certificates",
        "Its certificates come from an authority elsewhere: docs/guides/certificates.md.",
    ),
    "secrets_unavailable": (
        409,
        "This node can seal no secrets",
        "Give every node the key ring: docs/guides/security.md.",
    ),
    "internal": (500, "An error of the server", "Report it with the request id; the server's log has the cause."),
    "driver_error": (502, "The host could not answer", ""),
    "no_leader": (503, "The cluster has no leader", f"{_RETRY_SAFE} An election takes a second or two."),
    "no_majority": (
        503,
        "This node cannot reach a majority",
        "Nothing was changed: ask another node. `flintctl cluster status` shows what each of them believes; reads with"
        " `consistency=stale` say what this one knew last.",
    ),
    "outcome_unknown": (503, "The outcome is not known", _RETRY_KEYED),
    "host_unreachable": (503, "The host cannot be reached", "See `flintctl host show` for when it was last seen."),
    "upgrade_pending": (
        503,
        "Not every node can read this yet",
        "Nothing was changed: upgrade the nodes that are named, or remove those that are gone for good.",
    ),
    "not_ready": (503, "This node is not ready", _RETRY_SAFE),
}
"""Status, title and hint of every code."""


def problem(
    code: str,
    detail: str,
    *errors: FieldError,
    retry_after_s: float | None = None,
    request_id: str | None = None,
    existing: Existing | None = None,
    contact: ContactShape | None = None,
    hint: str | None = None,
) -> ApiError:
    """An ApiError for a known code; raise it, or answer with it. `hint`: a better one than the code's."""
    status, title, known_hint = _KNOWN[code]
    headers: dict[str, str] = {}
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(retry_after_s)))
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="flintlock"'
    document = Problem(
        type=TYPE_BASE + code,
        title=title,
        status=status,
        code=code,
        detail=detail,
        hint=known_hint if hint is None else hint,
        errors=list(errors),
        retry_after_s=retry_after_s,
        request_id=request_id,
        existing=existing,
        contact=contact,
    )
    return ApiError(document, headers)


def invalid(pointer: str, message: str) -> ApiError:
    """One field of the request is wrong."""
    return problem("invalid", f"{pointer}: {message}", FieldError(pointer=pointer, message=message))


def not_found(kind: str, name: str, *, pointer: str = "/name") -> ApiError:
    message = f"{kind} {name} does not exist"
    return problem("not_found", message, FieldError(pointer=pointer, message=message))


def escape(part: object) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")


def from_rejected(rejected: Rejected, *, prefix: str = "", existing: Meta | None = None) -> ApiError:
    """The machine's refusal. `prefix`: where in the body the refused declaration stands; `existing`: what stands in its
    way, if it is there already."""
    errors: list[FieldError] = []
    if rejected.pointer is not None:
        pointer = rejected.pointer if rejected.pointer.startswith("/header/") else prefix + rejected.pointer
        errors.append(FieldError(pointer=pointer, message=rejected.message))
    shown = None
    if rejected.code is Code.ALREADY_EXISTS and existing is not None:
        shown = Existing(uid=existing.uid, created_at=iso(existing.created_at))
    return problem(rejected.code, rejected.message, *errors, existing=shown)


def from_compacted(after: int, revision: int) -> ApiError:
    message = f"revision {after} is no longer remembered; the present one is {revision}"
    return problem("compacted", message, FieldError(pointer="/query/from", message=message))


def from_validation(errors: Sequence[Mapping[str, object]], *, prefix: str = "") -> ApiError:
    """Pydantic's errors, with a pointer each. Locations start with `body`, `path`, `query` or `header`, or are bare."""
    found: list[FieldError] = []
    for error in errors[:MAX_ERRORS]:
        location = cast("tuple[int | str, ...]", error.get("loc", ()))
        found.append(FieldError(pointer=prefix + _pointer(error, location), message=_message(error)))
    first = found[0] if found else FieldError(pointer="", message="the request is not valid")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    where = f"{first.pointer}: " if first.pointer else ""
    return problem("invalid", f"{where}{first.message}{more}", *found)


def from_pydantic(error: ValidationError, *, prefix: str = "") -> ApiError:
    """A validation done by hand; `prefix` says where in the body the value stands."""
    return from_validation(error.errors(include_url=False, include_input=False), prefix=prefix)


def _pointer(error: Mapping[str, object], location: tuple[int | str, ...]) -> str:
    if error.get("type") == "json_invalid":
        return ""
    steps = list(location)
    if steps and steps[0] in ("body", "path"):
        steps = steps[1:]
    # A wrong key of a map is located as ("labels", "bad key", "[key]"): the key itself is what to point at.
    return "".join("/" + escape(step) for step in steps if step != "[key]")


def _message(error: Mapping[str, object]) -> str:
    kind = error.get("type")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return "unknown field"
    if kind == "missing":
        return "is required"
    if kind == "json_invalid":
        context = cast("Mapping[str, object]", error.get("ctx") or {})
        return f"the body is not JSON: {context.get('error', 'it cannot be parsed')}"
    text = str(error.get("msg", "is not valid")).removeprefix("Value error, ")
    text = _SUBJECT.sub("must ", text)
    if kind == "string_pattern_mismatch":
        context = cast("Mapping[str, object]", error.get("ctx") or {})
        text = PATTERN_WORDS.get(str(context.get("pattern")), text)
    location = cast("tuple[int | str, ...]", error.get("loc", ()))
    return f"the key is not valid: {text}" if location and location[-1] == "[key]" else text


# -- answers -----------------------------------------------------------------------------------------------------------


def answer(error: ApiError) -> Response:
    return Response(
        error.problem.model_dump_json(exclude_none=True),
        status_code=error.problem.status,
        media_type=MEDIA_TYPE,
        headers=error.headers,
    )


async def handle_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = from_validation(cast("Sequence[Mapping[str, object]]", error.errors()))
    _let_go(error)
    return answer(found)


def _let_go(error: Exception) -> None:
    """The frame that raised it holds the error in a variable, and the error holds that frame, and the body with it: it
    would stay until the collector comes, which it seldom does (`bootstrap.process`)."""
    error.__traceback__ = error.__cause__ = error.__context__ = None


async def handle_http(methods_at: Callable[[str], list[str]], request: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown paths, wrong methods, bodies that cannot be decoded.

    `methods_at` gives the methods of every route of a path; the framework names those of the first one.
    """
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            found = problem("not_found", f"there is nothing at {request.url.path}")
        case 405:
            found = problem("method_not_allowed", f"{request.method} is not allowed at {request.url.path}")
            headers["Allow"] = ", ".join(methods_at(request.url.path))
        case 413:
            found = problem("too_large", "the body is too large")
        case _:
            found = problem("invalid", "the body cannot be read as JSON", FieldError(pointer="", message="not JSON"))
    found.headers.update(headers)
    _let_go(error)
    return answer(found)
