"""The commands about join tokens, and the one by which somebody joins.

A token is redeemed by a command, so of two that come at once with the last use of a token the log lets one in. Who is
there already joins again only by a token for its own name: anybody with a general token could take its place otherwise.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address, ip_network

from controlplane.machine.certificates import forget_expired, holds_valid, later, record_issued
from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Code, Rejected
from controlplane.machine.state import State
from controlplane.machine.steps import Result, applied
from controlplane.model.commands import CreateJoinToken, Join, RevokeJoinToken
from controlplane.model.credentials import JoinToken, MemberKind
from controlplane.model.types import replace

MAX_TOKENS = 1_000
MAX_TTL_S = 7 * 86_400
MAX_USES = 1_000
UNKNOWN = "the join token is not known: it was mistyped, is used up, has expired or was revoked"
"""One answer for all of them: whoever guesses learns nothing."""


def create_join_token(draft: Draft, command: CreateJoinToken) -> Result:
    _forget_ended(draft)
    forget_expired(draft)
    if not 1 <= command.ttl_s <= MAX_TTL_S:
        message = f"a join token lasts between 1 and {MAX_TTL_S} s, not {command.ttl_s}"
        return Rejected(code=Code.INVALID, message=message, pointer="/ttl_s")
    if not 1 <= command.uses <= MAX_USES or (command.name is not None and command.uses != 1):
        message = f"a join token is used between 1 and {MAX_USES} times, one for a name once"
        return Rejected(code=Code.INVALID, message=message, pointer="/uses")
    if len(draft.state.join_tokens) >= MAX_TOKENS:
        message = f"there are {MAX_TOKENS} join tokens already; revoke what is not needed"
        return Rejected(code=Code.INVALID, message=message)
    if command.id in draft.state.join_tokens:
        return applied(draft, command.id)
    token = JoinToken(
        id=command.id,
        sha256=command.sha256,
        role=command.role,
        actor=draft.actor,
        at=draft.at,
        expires_at=later(draft.at, command.ttl_s * 1000),
        uses=command.uses,
        name=command.name,
        macs=sorted(command.macs),
        cidrs=sorted(command.cidrs),
    )
    draft.put_join_token(token)
    return applied(draft, command.id)


def revoke_join_token(draft: Draft, command: RevokeJoinToken) -> Result:
    token = draft.state.join_tokens.get(command.id)
    if token is None:
        return Rejected(code=Code.NOT_FOUND, message=f"there is no join token {command.id}", pointer="/id")
    draft.drop_join_token(token)
    return applied(draft, command.id)


def join(draft: Draft, command: Join) -> Result:
    if (refusal := objection(draft.state, command, at=draft.at)) is not None:
        return refusal
    token = draft.state.join_tokens[command.redeems]
    used = replace(token, used=token.used + 1)
    if used.used < used.uses:
        draft.put_join_token(used)
    else:
        draft.drop_join_token(token)
    record_issued(draft, command.role, command.name, command.serial, command.expires_at, command.authority)
    return applied(draft, command.serial)


def objection(state: State, command: Join, *, at: int) -> Rejected | None:
    """Why `command` would be refused at the time `at`; None if it would not."""
    token = state.join_tokens.get(command.redeems)
    known = token.sha256 if token is not None else "0" * 64
    if not hmac.compare_digest(known.encode(), command.sha256.encode()) or token is None or not _lives(token, at):
        return Rejected(code=Code.JOIN_REFUSED, message=UNKNOWN, pointer="/token")
    if token.role is not command.role:
        message = f"the join token is for a {token.role.value}, not for a {command.role.value}"
        return Rejected(code=Code.JOIN_REFUSED, message=message, pointer="/role")
    if token.name not in (None, command.name):
        message = f"the join token is not for a {command.role.value} of the name {command.name}"
        return Rejected(code=Code.JOIN_REFUSED, message=message, pointer="/name")
    if token.macs and not {each.lower() for each in token.macs} & {each.lower() for each in command.macs}:
        message = "none of the joiner's MAC addresses is one that the join token is for"
        return Rejected(code=Code.JOIN_REFUSED, message=message, pointer="/macs")
    if token.cidrs and not _within(command.address, token.cidrs):
        message = f"the join token is not for connections from {command.address or 'an unknown address'}"
        return Rejected(code=Code.JOIN_REFUSED, message=message)
    if token.name is None and _is_there(state, command, at):
        message = (
            f"{command.role.value} {command.name} is there already: it joins again only by a token for its own name"
        )
        return Rejected(code=Code.JOIN_REFUSED, message=message, pointer="/name")
    return None


def _is_there(state: State, command: Join, at: int) -> bool:
    """Somebody goes by that name, whoever issued the certificate."""
    if holds_valid(state, command.role.value, command.name, at):
        return True
    host = state.hosts.get(command.name) if command.role is MemberKind.HOST else None
    return host is not None and host.session is not None


def _lives(token: JoinToken, at: int) -> bool:
    return at < token.expires_at and token.used < token.uses


def _within(address: str, cidrs: list[str]) -> bool:
    try:
        there = ip_address(address)
        networks = [ip_network(each, strict=False) for each in cidrs]
    except ValueError:
        return False
    return any(there in each for each in networks)


def _forget_ended(draft: Draft) -> None:
    for key in sorted(draft.state.join_tokens):
        token = draft.state.join_tokens[key]
        if not _lives(token, draft.at):
            draft.drop_join_token(token)
