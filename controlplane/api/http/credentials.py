"""Whose a bearer token is: an entry of the node's tokens file, an API token of the state, or a token of an OIDC issuer.

A secret that this replica's state does not know is looked for once more in the newest state, so that a token counts at
every node once its making was acknowledged. Such questions share one read-index, so guesses cost no more than one at a
time. A revoked token is gone from the state, so it counts at a node for as long as that lags, which is milliseconds;
`Access` looks again for every decision, so that what was begun before ends, too.
"""

from __future__ import annotations

import re
from typing import Protocol

from controlplane.api.http.times import iso
from controlplane.api.http.token_uses import TokenUses
from controlplane.decide.api_tokens import Directory, ended_at
from controlplane.identity.principal import Principal, UnauthenticatedError
from controlplane.identity.tokens import PREFIX, TokenAuthenticator, digest_of
from controlplane.model.api_tokens import ApiToken
from controlplane.ports import Clock, StateReader

UNKNOWN = "the bearer token is not known"
_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
MAX_BEARER_CHARS = 16 * 1024
_FRESH_S = 5.0


class Issuers(Protocol):
    async def authenticate(self, token: str) -> Principal:
        """Whom an issuer says it is. Raises UnauthenticatedError."""
        ...


class Credentials:
    """Every way in, for one node. `reader` is its replica; `issuers` is None where there are none."""

    def __init__(
        self, *, file: TokenAuthenticator, reader: StateReader, clock: Clock, uses: TokenUses, issuers: Issuers | None
    ) -> None:
        self._file = file
        self._reader = reader
        self._clock = clock
        self._uses = uses
        self._issuers = issuers
        self._directory = Directory(reader.state.api_tokens)

    async def authenticate(self, bearer: str) -> Principal:
        if len(bearer) > MAX_BEARER_CHARS:
            raise UnauthenticatedError(f"the bearer token is over {MAX_BEARER_CHARS} characters")
        if (principal := self._file.authenticate(bearer)) is not None:
            return principal
        if _SECRET.fullmatch(bearer) is not None:
            return await self._of_state(digest_of(bearer))
        if self._issuers is not None and _JWT.fullmatch(bearer) is not None:
            return await self._issuers.authenticate(bearer)
        raise UnauthenticatedError(UNKNOWN)

    async def _of_state(self, sha256: str) -> Principal:
        token = self._find(sha256)
        if token is None:
            await self._reader.fresh(timeout_s=_FRESH_S)
            token = self._find(sha256)
        if token is None:
            raise UnauthenticatedError(UNKNOWN)
        now, end = self._clock.now_ms(), ended_at(token, sha256)
        if end <= now:
            why = "expired" if end == token.expires_at else "was rotated, and the secret before ended"
            raise UnauthenticatedError(f"API token {token.name} {why} at {iso(end)}: ask for another")
        self._uses.note(token, now)
        return Principal(
            name=f"token/{token.name}",
            user=token.spec.user,
            groups=frozenset(token.spec.groups),
            token=token.name,
            token_uid=token.uid,
            expires_at=end,
        )

    def _find(self, sha256: str) -> ApiToken | None:
        tokens = self._reader.state.api_tokens
        if tokens is not self._directory.tokens:
            self._directory = Directory(tokens)
        return self._directory.find(sha256)
