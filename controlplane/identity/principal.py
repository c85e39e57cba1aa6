"""Who a request comes from, as its credential was found to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    name: str
    """The actor of whatever it changes."""
    roles: frozenset[str] = frozenset()
    """That it has everywhere, whatever is declared: those of a node's tokens file."""
    user: str | None = None
    groups: frozenset[str] = frozenset()
    token: str | None = None
    """Under which name bindings may name the token; None: it came with none of ours."""
    token_uid: str | None = None
    """Of a token that the state holds: it counts for as long as it is there."""
    expires_at: int | None = None
    """When the credential ends, in milliseconds since the Unix epoch; None: when somebody takes it away."""


class UnauthenticatedError(Exception):
    """The credential is nobody's, or not any more; the message is for whoever sent it."""
