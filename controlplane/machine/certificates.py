"""The commands about the certificates that the cluster's authority issued.

A certificate is handed out only after its command was accepted, so a revocation has an order with every renewal: what
was renewed before is revoked with the rest, what comes after is refused. What has expired is forgotten, a holder's
whenever it gets another one and everybody's when a token is created.
"""

from __future__ import annotations

from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Code, Rejected
from controlplane.machine.state import State
from controlplane.machine.steps import Result, applied
from controlplane.model.commands import RenewCertificate, RevokeCertificates
from controlplane.model.credentials import Holder, IssuedCertificate, MemberKind, holder_key
from controlplane.model.types import replace

MAX_CERTIFICATES = 64
"""Unexpired ones of one holder: whoever asks for more renews without end."""
MAX_REASON = 1024
FOREIGN_LIFE_MS = 825 * 86_400_000
"""How long a revoked certificate that the cluster did not issue is remembered: the longest that any authority is to
issue one for."""
LAST_MS = 2**63 - 1
"""A proposer's clock may say anything; what follows from it still has to fit into a record."""


def renew_certificate(draft: Draft, command: RenewCertificate) -> Result:
    if (reason := revocation(draft.state, command.kind, command.name, command.presented)) is not None:
        return Rejected(code=Code.CERTIFICATE_REVOKED, message=reason)
    holder = draft.state.holders.get(holder_key(command.kind, command.name))
    if holder is not None and len(unexpired(holder, draft.at)) >= MAX_CERTIFICATES:
        message = f"{command.kind.value} {command.name} has {MAX_CERTIFICATES} certificates that have not expired"
        return Rejected(code=Code.INVALID, message=message)
    known = () if holder is None else [each.serial for each in holder.certificates]
    if command.presented not in known and command.presented_expires_at > draft.at:
        record_issued(draft, command.kind, command.name, command.presented, command.presented_expires_at)
    _note_shown(draft, command)
    record_issued(draft, command.kind, command.name, command.serial, command.expires_at, command.authority)
    return applied(draft, command.serial)


def revoke_certificates(draft: Draft, command: RevokeCertificates) -> Result:
    if not command.reason.strip() or len(command.reason) > MAX_REASON:
        message = f"a revocation needs a reason of at most {MAX_REASON} characters"
        return Rejected(code=Code.INVALID, message=message, pointer="/reason")
    holder = draft.state.holders.get(holder_key(command.kind, command.name))
    if command.serial is None:
        if holder is None or not unexpired(holder, draft.at):
            message = f"the cluster issued no certificate to {command.kind.value} {command.name} that is still valid"
            return Rejected(code=Code.NOT_FOUND, message=message, pointer="/name")
        revoke_all(draft, command.kind, command.name, command.reason)
        return applied(draft, command.name)
    holder = holder or Holder(kind=command.kind, name=command.name, certificates=[])
    if not any(each.serial == command.serial for each in holder.certificates):
        foreign = IssuedCertificate(serial=command.serial, at=draft.at, expires_at=later(draft.at, FOREIGN_LIFE_MS))
        holder = replace(holder, certificates=[*unexpired(holder, draft.at), foreign])
        if len(holder.certificates) > MAX_CERTIFICATES:
            return Rejected(code=Code.INVALID, message=f"a holder has at most {MAX_CERTIFICATES} certificates")
    _revoke(draft, holder, command.reason, command.serial)
    return applied(draft, command.serial)


def revoke_all(draft: Draft, kind: MemberKind, name: str, reason: str) -> None:
    """Whatever certificates `name` has, none of them counts any more."""
    if (holder := draft.state.holders.get(holder_key(kind, name))) is not None:
        _revoke(draft, holder, reason)


def revoke_others(draft: Draft, holder: Holder, authority: str, reason: str) -> None:
    """What another authority than this one signed for `holder` counts no more."""
    for each in holder.certificates:
        if each.authority != authority:
            _revoke(draft, draft.state.holders[holder_key(holder.kind, holder.name)], reason, each.serial)


def record_issued(draft: Draft, kind: MemberKind, name: str, serial: str, expires_at: int, authority: str = "") -> None:
    holder = draft.state.holders.get(holder_key(kind, name))
    before = unexpired(holder, draft.at) if holder is not None else []
    known = authority if _was_rotated(draft.state) else ""
    issued = IssuedCertificate(serial=serial, at=draft.at, expires_at=expires_at, authority=known)
    draft.put_holder(Holder(kind=kind, name=name, certificates=[*before, issued]))


def forget_expired(draft: Draft) -> None:
    for key in sorted(draft.state.holders):
        holder = draft.state.holders[key]
        left = unexpired(holder, draft.at)
        if not left:
            draft.drop_holder(holder)
        elif len(left) < len(holder.certificates):
            draft.put_holder(replace(holder, certificates=left))


def revocation(state: State, kind: str, name: str, serial: str) -> str | None:
    """Why the certificate `serial` of that member does not count; None if nothing is held against it."""
    holder = state.holders.get(holder_key(kind, name))
    for each in holder.certificates if holder is not None else ():
        if each.serial == serial and each.revoked_at is not None:
            return f"the certificate {serial} of {kind} {name} was revoked by {each.revoked_by}: {each.reason}"
    return None


def holds_valid(state: State, kind: str, name: str, at: int) -> bool:
    """Whether somebody has a certificate of that name that counts."""
    holder = state.holders.get(holder_key(kind, name))
    return holder is not None and any(each.revoked_at is None for each in unexpired(holder, at))


def unexpired(holder: Holder, at: int) -> list[IssuedCertificate]:
    return [each for each in holder.certificates if each.expires_at > at]


def later(at: int, ms: int) -> int:
    return min(at + ms, LAST_MS)


def _was_rotated(state: State) -> bool:
    """Only then it matters who signed what. Until then records are what builds that know of no rotation made of the
    same entries, so that nodes agree whichever build applied them.
    """
    return len(state.authorities) > 1


def _note_shown(draft: Draft, command: RenewCertificate) -> None:
    """Who asks for another certificate shows the one that it has."""
    holder = draft.state.holders.get(holder_key(command.kind, command.name))
    if holder is not None and _was_rotated(draft.state):
        certificates = [
            replace(each, shown=True) if each.serial == command.presented else each for each in holder.certificates
        ]
        draft.put_holder(replace(holder, certificates=certificates))


def _revoke(draft: Draft, holder: Holder, reason: str, serial: str | None = None) -> None:
    revoked = [
        replace(each, revoked_at=draft.at, revoked_by=draft.actor, reason=reason)
        if each.revoked_at is None and serial in (None, each.serial)
        else each
        for each in holder.certificates
    ]
    draft.put_holder(replace(holder, certificates=revoked))
