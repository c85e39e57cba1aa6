"""Who gets in and by what: API tokens, the cluster's authority, join tokens and certificates."""

from __future__ import annotations

from simulation.random_commands.choices import SEALED_KEY, Choices

from controlplane.machine.authorities import trusted
from controlplane.machine.state import State
from controlplane.model.api_tokens import ApiTokenSpec
from controlplane.model.commands import (
    AbortRotation,
    Command,
    CreateApiToken,
    CreateJoinToken,
    EstablishAuthority,
    Join,
    NoteApiTokenUses,
    RenewCertificate,
    RetireAuthority,
    RevokeApiToken,
    RevokeCertificates,
    RevokeJoinToken,
    RotateApiToken,
    RotateAuthority,
)
from controlplane.model.credentials import MemberKind


def api_token(choices: Choices, state: State) -> Command:
    name, sha256 = choices.name(), choices.pick(("0", "1", "2", "x")) * 64
    old = state.api_tokens.get(name)
    uid = old.uid if old is not None else choices.uid()
    expires_at = choices.integer(1_000, 2_000_000_000_000)
    match choices.pick(("create", "create", "rotate", "revoke", "use")):
        case "create":
            spec = ApiTokenSpec(user=choices.pick((None, "oidc:alice")), groups=["web"])
            return CreateApiToken(name=name, uid=choices.uid(), spec=spec, sha256=sha256, expires_at=expires_at)
        case "rotate":
            retired_until = choices.integer(0, expires_at)
            return RotateApiToken(name=name, uid=uid, sha256=sha256, expires_at=expires_at, retired_until=retired_until)
        case "revoke":
            return RevokeApiToken(name=name, uid=uid)
        case _:
            return NoteApiTokenUses(used={name: choices.integer(0, expires_at)})


def credential(choices: Choices, state: State) -> Command:
    """About the cluster's authority, who joins, and what was issued."""
    name, key, kind = choices.name(), choices.name(), choices.pick((MemberKind.HOST, MemberKind.HOST, MemberKind.NODE))
    serial, expires_at = choices.pick(("1", "2", "3")), choices.integer(1_000, 2_000_000_000_000)
    signs = trusted(state)[0].fingerprint if trusted(state) else key
    steps = ("found", "token", "join", "join", "renew", "renew", "revoke", "end", "rotate", "abort", "retire")
    match choices.pick(steps):
        case "found":
            return EstablishAuthority(fingerprint=key, certificate="PEM", key=SEALED_KEY)
        case "rotate":
            return RotateAuthority(
                fingerprint=key,
                certificate="PEM",
                key=SEALED_KEY,
                succeeds=choices.pick((signs, signs, key)),
                crossed="X",
            )
        case "abort":
            return AbortRotation(fingerprint=trusted(state)[-1].fingerprint if trusted(state) else key)
        case "retire":
            last = trusted(state)[-1].fingerprint if trusted(state) else key
            return RetireAuthority(fingerprint=last, force=choices.chance(50))
        case "token":
            ttl_s = choices.pick((0, 60, 86_400, 86_400))
            return CreateJoinToken(id=key, sha256="1" * 64, role=kind, ttl_s=ttl_s, uses=choices.pick((0, 1, 2)))
        case "join":
            if state.join_tokens and choices.chance(70):
                known = choices.pick(tuple(state.join_tokens[each] for each in sorted(state.join_tokens)))
                key, kind = known.id, known.role
            sha256 = choices.pick(("1", "1", "2")) * 64
            return Join(redeems=key, sha256=sha256, role=kind, name=name, serial=serial, expires_at=expires_at)
        case "renew":
            return RenewCertificate(
                kind=kind,
                name=name,
                presented=choices.pick(("1", "2", "3")),
                presented_expires_at=expires_at,
                serial=serial,
                expires_at=expires_at,
                authority=signs,
            )
        case "revoke":
            only = choices.pick((None, serial))
            return RevokeCertificates(kind=kind, name=name, reason=choices.pick(("", "lost", "lost")), serial=only)
        case _:
            return RevokeJoinToken(id=key)
