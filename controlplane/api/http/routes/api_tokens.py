"""API tokens: make one, read what is known of it, give it another secret, revoke it.

Who may do so has to be allowed all that the token is allowed (`decide.api_tokens`). The secret is made here, goes into
the answer, and nowhere else: the log gets its digest.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import api_token_shapes, params, problems, reads, writes
from controlplane.api.http.access import Asker, Asking
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, Services, With
from controlplane.decide import api_tokens
from controlplane.decide.access import Caller, Question
from controlplane.identity.tokens import digest_of, new_token
from controlplane.machine.state import State
from controlplane.model.access import AccessKind, Verb
from controlplane.model.api_tokens import ApiToken, ApiTokenSpec
from controlplane.model.commands import CreateApiToken, RevokeApiToken, RotateApiToken

router = APIRouter(tags=["Access"], route_class=StrictRoute)


@router.post("/api-tokens", response_model=api_token_shapes.ApiTokenSecret, status_code=201)
async def create_api_token(services: With, actor: Actor, asker: Asking, body: api_token_shapes.NewApiToken) -> Response:
    """Make a token. The answer holds its secret, which nobody can be told again."""
    await asker.require(Question(verb=Verb.DECLARE, kind=AccessKind.API_TOKEN, name=body.name, labels={}))
    spec = ApiTokenSpec(user=body.user, groups=body.groups, limit=body.limit, description=body.description)
    state = await reads.snapshot(services)
    maker = asker.caller(state)
    _require_no_excess(asker, state, api_tokens.caller_of(body.name, spec, maker.limits), spec)
    secret = new_token()
    command = CreateApiToken(
        name=body.name,
        uid=services.ids.new(),
        spec=spec,
        sha256=digest_of(secret),
        expires_at=_end(services, asker, body.ttl_s or services.settings.api_token_ttl_s),
        inherited=list(maker.limits),
    )
    _, state = await writes.propose(services, actor, command, key=None)
    return _tell(state, command.name, command.sha256, secret, status=201)


@router.get("/api-tokens", response_model=api_token_shapes.ApiTokenList)
async def list_api_tokens(
    asker: Asking,
    state: reads.Snapshot,
    limit: params.LimitParam = params.DEFAULT_LIMIT,
    after: params.ContinueParam = None,
) -> Response:
    """List them in order of name."""

    def sees(token: ApiToken) -> bool:
        return asker.allows(_about(Verb.READ, token.name), state)

    items, following = reads.page(state.api_tokens.items(), limit=limit, after=after, keep=sees)
    return await respond_list(items, api_token_shapes.api_token, state, following)


@router.get("/api-tokens/{name}", response_model=api_token_shapes.ApiTokenShape)
async def read_api_token(state: reads.Snapshot, name: params.NameParam) -> Response:
    """Read what is known of a token."""
    return respond(api_token_shapes.api_token(state, _token(state, name)), state)


@router.post("/api-tokens/{name}/actions/rotate", response_model=api_token_shapes.ApiTokenSecret)
async def rotate_api_token(
    services: With, actor: Actor, asker: Asking, name: params.NameParam, body: api_token_shapes.Rotation
) -> Response:
    """Give a token another secret; the one before stays good for a while, if that is asked for."""
    token = await _handled(services, asker, name)
    secret, now = new_token(), services.clock.now_ms()
    command = RotateApiToken(
        name=name,
        uid=token.uid,
        sha256=digest_of(secret),
        expires_at=_end(services, asker, body.ttl_s) if body.ttl_s is not None else _bounded(asker, token.expires_at),
        retired_until=now + body.overlap_s * 1000,
    )
    _, state = await writes.propose(services, actor, command, key=None)
    return _tell(state, name, command.sha256, secret)


@router.delete("/api-tokens/{name}", response_model=api_token_shapes.ApiTokenShape)
async def revoke_api_token(services: With, actor: Actor, asker: Asking, name: params.NameParam) -> Response:
    """Revoke a token, at once and at every node."""
    token = await _handled(services, asker, name)
    _, state = await writes.propose(services, actor, RevokeApiToken(name=name, uid=token.uid), key=None)
    return respond(api_token_shapes.api_token(state, token), state)


async def _handled(services: Services, asker: Asker, name: str) -> ApiToken:
    """The token, if the caller may handle it. Raises ApiError."""
    state = await reads.snapshot(services)
    token = _token(state, name)
    _require_no_excess(asker, state, api_tokens.caller_of(name, token.spec, token.inherited), token.spec)
    return token


def _require_no_excess(asker: Asker, state: State, token: Caller, spec: ApiTokenSpec) -> None:
    mine = asker.access.grants(asker.principal, state)
    found = api_tokens.excess(state, asker.caller(state), mine, token, spec)
    if found is not None:
        pointed = problems.FieldError(pointer=found.pointer, message=found.message)
        raise problems.problem("forbidden", found.message, pointed)


def _end(services: Services, asker: Asker, ttl_s: int) -> int:
    """When a token of `ttl_s` ends. Raises ApiError."""
    longest = services.settings.api_token_max_ttl_s
    if ttl_s > longest:
        raise problems.invalid("/ttl_s", f"is over {longest}, which is the longest here")
    return _bounded(asker, services.clock.now_ms() + ttl_s * 1000)


def _bounded(asker: Asker, end: int) -> int:
    if asker.principal.token_uid is None or asker.principal.expires_at is None:
        return end
    # A token that leaked must not go on for ever in the tokens that it makes.
    return min(end, asker.principal.expires_at)


def _tell(state: State, name: str, sha256: str, secret: str, *, status: int = 200) -> Response:
    token = state.api_tokens.get(name)
    if token is None or token.sha256 != sha256:
        # Revoked or rotated between the write and this answer.
        raise problems.not_found("API token", name)
    return respond(api_token_shapes.with_secret(token, secret), state, status=status)


def _token(state: State, name: str) -> ApiToken:
    if (found := state.api_tokens.get(name)) is None:
        raise problems.not_found("API token", name)
    return found


def _about(verb: Verb, name: str) -> Question:
    return Question(verb=verb, kind=AccessKind.API_TOKEN, name=name, labels={})
