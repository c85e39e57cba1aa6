"""The commands about API tokens: made, given another secret, revoked, used (docs/adr/0136).

What a token may do, and whether its maker may make such a one, is decided before it is proposed; here is what keeps the
table sound whatever is proposed. A revoked token is gone from the state at once. One that has expired stays for a
month, so that whoever uses it is told why it does nothing, and goes with a later command about tokens.
"""

from __future__ import annotations

import re

from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.state import State
from controlplane.machine.steps import Result, stale
from controlplane.model.api_tokens import ApiToken, RetiredSecret
from controlplane.model.commands import CreateApiToken, NoteApiTokenUses, RevokeApiToken, RotateApiToken
from controlplane.model.types import NAME_PATTERN, replace

MAX_TOKENS = 10_000
MAX_INHERITED = 8
"""Limits that a token has from the tokens which made one another."""
FORGOTTEN_AFTER_MS = 30 * 86_400_000
"""So long after its end an expired token is still known."""
USES_EVERY_MS = 300_000
"""The use of a token is written at most this often."""
_NAME = re.compile(NAME_PATTERN)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def create(draft: Draft, command: CreateApiToken) -> Result:
    _forget(draft)
    if (refused := _new_refusal(draft.state, command)) is not None:
        return refused
    if (refused := _secret_refusal(draft, command.sha256, command.expires_at)) is not None:
        return refused
    draft.put_api_token(
        ApiToken(
            name=command.name,
            uid=command.uid,
            spec=command.spec,
            sha256=command.sha256,
            created_at=draft.at,
            created_by=draft.actor,
            expires_at=command.expires_at,
            inherited=command.inherited,
            revision=draft.revision,
        )
    )
    return Applied(revision=draft.revision, change=Change.CREATED)


def rotate(draft: Draft, command: RotateApiToken) -> Result:
    token = draft.state.api_tokens.get(command.name)
    if token is None or token.uid != command.uid:
        return _missing(command.name)
    if (refused := _secret_refusal(draft, command.sha256, command.expires_at)) is not None:
        return refused
    retired = RetiredSecret(sha256=token.sha256, until=min(command.retired_until, token.expires_at))
    draft.put_api_token(
        replace(
            token,
            sha256=command.sha256,
            expires_at=command.expires_at,
            rotated_at=draft.at,
            retired=retired if retired.until > draft.at else None,
            revision=draft.revision,
        )
    )
    return Applied(revision=draft.revision, change=Change.CHANGED)


def revoke(draft: Draft, command: RevokeApiToken) -> Result:
    token = draft.state.api_tokens.get(command.name)
    if token is None or token.uid != command.uid:
        return _missing(command.name)
    draft.drop_api_token(token)
    return Applied(revision=draft.revision, change=Change.DELETED)


def note_uses(draft: Draft, command: NoteApiTokenUses) -> Result:
    _forget(draft)
    for name, told in sorted(command.used.items()):
        at = min(told, draft.at)
        token = draft.state.api_tokens.get(name)
        if token is not None and at >= (token.last_used_at or token.created_at - USES_EVERY_MS) + USES_EVERY_MS:
            draft.put_api_token(replace(token, last_used_at=at))
    if not draft.changed:
        return stale("uses as new as these are known")
    return Applied(revision=draft.revision, change=Change.CHANGED)


def _forget(draft: Draft) -> None:
    for _, token in sorted(draft.state.api_tokens.items()):
        if token.expires_at + FORGOTTEN_AFTER_MS <= draft.at:
            draft.drop_api_token(token)


def _new_refusal(state: State, command: CreateApiToken) -> Rejected | None:
    if _NAME.fullmatch(command.name) is None:
        return Rejected(code=Code.INVALID, message=f"{command.name!r} is not a valid name", pointer="/name")
    if (there := state.api_tokens.get(command.name)) is not None:
        message = f"API token {command.name} already exists: rotate it for another secret, or revoke it first"
        return Rejected(code=Code.ALREADY_EXISTS, message=message, pointer="/name", uid=there.uid)
    if len(state.api_tokens) >= MAX_TOKENS:
        message = f"there are {MAX_TOKENS} API tokens already: revoke what nobody uses"
        return Rejected(code=Code.QUOTA_EXCEEDED, message=message, pointer="/name")
    if len(command.inherited) > MAX_INHERITED:
        message = f"tokens that make one another go {MAX_INHERITED} deep at most"
        return Rejected(code=Code.INVALID, message=message, pointer="/name")
    return None


def _secret_refusal(draft: Draft, sha256: str, expires_at: int) -> Rejected | None:
    if _SHA256.fullmatch(sha256) is None:
        return Rejected(code=Code.INVALID, message="must be a SHA-256 in hex", pointer="/sha256")
    if any(sha256 in (each.sha256, each.retired and each.retired.sha256) for each in draft.state.api_tokens.values()):
        return Rejected(code=Code.INVALID, message="must be of a secret that no token ever had", pointer="/sha256")
    if expires_at <= draft.at:
        return Rejected(code=Code.INVALID, message="must be in the future", pointer="/expires_at")
    return None


def _missing(name: str) -> Rejected:
    return Rejected(code=Code.NOT_FOUND, message=f"API token {name} does not exist", pointer="/name")
