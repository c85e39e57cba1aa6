"""Whether a token is one of a trusted issuer, for us, now; and whom it stands for.

The order matters: only the issuer's name, the key's id and the algorithm are read before the signature was verified,
and each only selects something of ours. What was verified has to have an end, an audience of ours and the claims
that are required; user and groups are prefixed, so they are never anybody else's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jwt

from controlplane.identity.oidc.fetch import Json
from controlplane.identity.oidc.keys import MAX_ID_CHARS, IssuerKeys
from controlplane.identity.oidc.settings import Algorithm, OidcIssuer
from controlplane.identity.principal import Principal, UnauthenticatedError
from controlplane.model.types import is_subject_name

MAX_TOKEN_CHARS = 16 * 1024
MAX_GROUPS = 256
_TYPES = (None, "jwt", "at+jwt")


class OidcTokens:
    """The tokens of every issuer of the settings. `now` is a monotonic clock in seconds."""

    def __init__(self, issuers: Sequence[OidcIssuer], *, now: Callable[[], float] = time.monotonic) -> None:
        self._issuers = {each.issuer: (each, IssuerKeys(each, now=now)) for each in issuers}

    async def authenticate(self, token: str) -> Principal:
        """Whom the token stands for. Raises UnauthenticatedError with the reason."""
        if len(token) > MAX_TOKEN_CHARS:
            raise UnauthenticatedError(f"the token is over {MAX_TOKEN_CHARS} characters")
        header, claimed = _unverified(token)
        known = self._issuers.get(str(claimed.get("iss")))
        if known is None:
            raise UnauthenticatedError("the token's issuer is none that is trusted here")
        issuer, keys = known
        algorithm = _algorithm(header, issuer)
        key = await keys.find(_key_id(header), algorithm)
        if key is None:
            raise UnauthenticatedError(f"the token is signed by no key that {issuer.issuer} publishes")
        try:
            claims: Json = jwt.decode(
                token,
                key,
                algorithms=[algorithm.value],
                audience=issuer.audiences,
                issuer=issuer.issuer,
                leeway=issuer.leeway_s,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise UnauthenticatedError(_reason(error)) from None
        return principal_of(issuer, claims)


def principal_of(issuer: OidcIssuer, claims: Json) -> Principal:
    """Whom verified claims stand for. Raises UnauthenticatedError."""
    for name, value in issuer.required_claims.items():
        if claims.get(name) != value:
            raise UnauthenticatedError(f"the token's claim {name} is not what is required here")
    named = claims.get(issuer.username_claim)
    if issuer.username_claim == "email" and claims.get("email_verified") is not True:
        raise UnauthenticatedError("the token's issuer has not verified the email address")
    if not isinstance(named, str) or not named or not is_subject_name(user := issuer.prefix + named):
        raise UnauthenticatedError(f"the token's claim {issuer.username_claim} names no user")
    groups = {issuer.prefix + each for claim in issuer.group_claims for each in _groups(claim, claims.get(claim))}
    if len(groups) > MAX_GROUPS:
        raise UnauthenticatedError(f"the token names over {MAX_GROUPS} groups")
    return Principal(
        name=user,
        user=user,
        groups=frozenset(filter(is_subject_name, groups)),
        expires_at=(int(claims["exp"]) + issuer.leeway_s) * 1000,
    )


def _groups(claim: str, value: object) -> Iterator[str]:
    """A text gives `CLAIM=VALUE`, which no value of a list can pass for."""
    if isinstance(value, str) and value:
        yield f"{claim}={value}"
    elif isinstance(value, list):
        for each in cast("list[object]", value):
            if isinstance(each, str) and each and "=" not in each:
                yield each


def _unverified(token: str) -> tuple[Json, Json]:
    try:
        header: Json = jwt.get_unverified_header(token)
        claims: Any = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise UnauthenticatedError("the bearer token is not known") from None
    return header, cast("Json", claims)


def _algorithm(header: Json, issuer: OidcIssuer) -> Algorithm:
    kind = header.get("typ")
    if (kind.lower() if isinstance(kind, str) else kind) not in _TYPES:
        raise UnauthenticatedError("the token is not of a type that is taken here")
    found = next((each for each in issuer.algorithms if each.value == header.get("alg")), None)
    if found is None:
        raise UnauthenticatedError("the token is signed in a way that is not taken here")
    return found


def _key_id(header: Json) -> str | None:
    key_id = header.get("kid")
    if key_id is not None and (not isinstance(key_id, str) or len(key_id) > MAX_ID_CHARS):
        raise UnauthenticatedError("the token names its key in no way that is known")
    return key_id


def _reason(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "the token has expired: log in again"
        case jwt.ImmatureSignatureError():
            return "the token is not valid yet: its issuer's clock and this node's differ"
        case jwt.InvalidAudienceError():
            return "the token is for another audience"
        case jwt.MissingRequiredClaimError():
            return f"the token has no claim {error.claim}"
        case jwt.InvalidSignatureError():
            return "the token's signature is not its issuer's"
        case _:
            return "the token is not valid"
