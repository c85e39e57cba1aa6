"""API tokens: which one a secret belongs to, and who may make, change or end which. Pure.

Nobody makes a token that may do more than he may himself, nor gets the secret of one, nor ends one. Three rules make
that hold tomorrow, too, when bindings are others: a token speaks only for the user and the groups of its maker, a token
that is made by a token keeps its maker's limits, and does not outlive it. Whoever may change role bindings could give
himself everything, so for him only the limits hold (docs/adr/0136).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from controlplane.decide import access
from controlplane.decide.access import Caller, Grants, Question
from controlplane.machine.state import State
from controlplane.machine.table import Table
from controlplane.model.access import AccessKind, AccessLimit, AccessSubjectKind, Verb
from controlplane.model.api_tokens import ApiToken, ApiTokenSpec
from controlplane.model.types import record

_BINDS = Question(verb=Verb.DECLARE, kind=AccessKind.ROLE_BINDING)


class Directory:
    """The tokens of one state by the digests of their secrets, so that one look-up finds a token."""

    def __init__(self, tokens: Table[ApiToken]) -> None:
        self.tokens = tokens
        self._by_digest: dict[str, ApiToken] = {}
        for token in tokens.values():
            self._by_digest[token.sha256] = token
            if token.retired is not None:
                self._by_digest[token.retired.sha256] = token

    def find(self, sha256: str) -> ApiToken | None:
        """The token that has, or had before its last rotation, the secret of this digest."""
        found = self._by_digest.get(sha256)
        if found is None:
            return None
        secrets = (found.sha256, found.retired.sha256 if found.retired is not None else "")
        return found if any(hmac.compare_digest(each, sha256) for each in secrets) else None


def ended_at(token: ApiToken, sha256: str) -> int:
    """When the secret of this digest, which is one of `token`'s, ends or has ended."""
    if token.retired is not None and sha256 == token.retired.sha256:
        return min(token.retired.until, token.expires_at)
    return token.expires_at


@record
class Excess:
    """Why a token may do more than whoever asks."""

    message: str
    pointer: str


def caller_of(name: str, spec: ApiTokenSpec, inherited: Iterable[AccessLimit] = ()) -> Caller:
    """The caller that such a token is."""
    known = access.of_token(name, user=spec.user, groups=spec.groups)
    return access.limited(known, (spec.limit, *inherited))


def excess(state: State, maker: Caller, mine: Grants, token: Caller, spec: ApiTokenSpec) -> Excess | None:
    """What keeps `maker`, who may do `mine`, from having or handling `token`, which is made as `spec` says."""
    if any(limit not in token.limits for limit in maker.limits):
        return Excess(message=f"{maker} is limited in ways that the token is not", pointer="/name")
    if mine.covers(_BINDS) is None:
        own = {(subject.kind, subject.name) for subject in maker.subjects}
        if spec.user is not None and (AccessSubjectKind.USER, spec.user) not in own:
            return Excess(message=f"{maker} cannot speak for user {spec.user}", pointer="/user")
        for number, group in enumerate(spec.groups):
            if (AccessSubjectKind.GROUP, group) not in own:
                return Excess(message=f"{maker} is not in group {group}", pointer=f"/groups/{number}")
    more = mine.first_outside(access.grants(state, token))
    if more is not None:
        verb, kind = more
        message = f"the token could {verb.value} {kind.value} where {maker} may not: limit it, or name it otherwise"
        return Excess(message=message, pointer="/name")
    return None
