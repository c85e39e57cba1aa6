"""The cluster's authority, and how another one takes its place without anybody being locked out.

A rotation is two authorities in the state. The new one signs from the first moment; its certificate is also signed by
the old one, so who knows the old one alone believes it, too. Every member renews under it and shows that it did: only
what is shown in the next request lies on the member's disk. Once nobody depends on the old one it is retired. To abort
is to let the old one sign again; then the new one is what nobody depends on in the end, and is retired.

There is no process behind this: members see from the state what is left to do, so it goes on under any leader.
"""

from __future__ import annotations

from controlplane.machine.certificates import revoke_others, unexpired
from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Code, Rejected
from controlplane.machine.state import State
from controlplane.machine.steps import Result, applied
from controlplane.model.commands import AbortRotation, EstablishAuthority, RetireAuthority, RotateAuthority
from controlplane.model.credentials import ClusterAuthority, Holder, MemberKind, Sealed, holder_key
from controlplane.model.types import replace

MAX_RETIRED = 8
"""That are remembered, so that members drop them. Who was away for longer than so many rotations joins anew."""
_NAMED = 5
"""Members that a refusal names."""
_BLANK = Sealed(key_id="", wrapped="", box="")


def establish(draft: Draft, command: EstablishAuthority) -> Result:
    if command.fingerprint in draft.state.authorities:
        return applied(draft, command.fingerprint)
    if len(draft.state.authorities):
        return Rejected(code=Code.ALREADY_EXISTS, message="the cluster has an authority of its own already")
    authority = ClusterAuthority(
        fingerprint=command.fingerprint,
        certificate=command.certificate,
        key=command.key,
        actor=draft.actor,
        at=draft.at,
    )
    draft.put_authority(authority)
    return applied(draft, command.fingerprint)


def rotate(draft: Draft, command: RotateAuthority) -> Result:
    if command.fingerprint in draft.state.authorities:
        return applied(draft, command.fingerprint)
    present = trusted(draft.state)
    if not present:
        return Rejected(code=Code.NOT_FOUND, message="the cluster has no authority of its own that could be replaced")
    if len(present) > 1:
        return Rejected(code=Code.AUTHORITY_IN_USE, message="a rotation is under way: end it first, or abort it")
    if present[0].fingerprint != command.succeeds:
        return Rejected(code=Code.STALE, message="another authority signs by now")
    authority = ClusterAuthority(
        fingerprint=command.fingerprint,
        certificate=command.certificate,
        key=command.key,
        actor=draft.actor,
        at=draft.at,
        turn=present[0].turn + 1,
        succeeds=command.succeeds,
        crossed=command.crossed,
    )
    draft.put_authority(authority)
    return applied(draft, command.fingerprint)


def abort(draft: Draft, command: AbortRotation) -> Result:
    present = trusted(draft.state)
    if command.fingerprint not in [each.fingerprint for each in present]:
        return Rejected(code=Code.STALE, message="the authority that was to sign again is not trusted any more")
    signs = present[0]
    if signs.succeeds == command.fingerprint:
        draft.put_authority(replace(draft.state.authorities[command.fingerprint], turn=signs.turn + 1))
    return applied(draft, command.fingerprint)


def retire(draft: Draft, command: RetireAuthority) -> Result:
    present = trusted(draft.state)
    given_up = draft.state.authorities.get(command.fingerprint)
    if given_up is None or given_up is present[0]:
        return Rejected(code=Code.STALE, message="there is no such authority, or it signs by now")
    if given_up.retired_at is not None:
        return applied(draft, command.fingerprint)
    left = waiting(draft.state, draft.at)
    if left and not command.force:
        named = ", ".join(f"{each.kind.value} {each.name}" for each in left[:_NAMED])
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        message = f"members still depend on the authority {command.fingerprint}: {named}{more}"
        return Rejected(code=Code.AUTHORITY_IN_USE, message=message)
    for holder in left:
        revoke_others(draft, holder, present[0].fingerprint, "its authority was retired")
    draft.put_authority(replace(given_up, key=_BLANK, crossed="", retired_at=draft.at))
    remembered = sorted(retired(draft.state), key=lambda each: (each.turn, each.fingerprint))
    for each in remembered[:-MAX_RETIRED]:
        draft.drop_authority(each)
    return applied(draft, command.fingerprint)


def trusted(state: State) -> list[ClusterAuthority]:
    """Those that members trust; the first one signs. Two during a rotation, none where certificates come from
    elsewhere."""
    present = [each for each in state.authorities.values() if each.retired_at is None]
    return sorted(present, key=lambda each: (each.turn, each.at, each.fingerprint), reverse=True)


def retired(state: State) -> list[ClusterAuthority]:
    """Those that are not trusted any more, as far as they are remembered."""
    return [each for each in state.authorities.values() if each.retired_at is not None]


def retired_fingerprints(state: State) -> list[str]:
    return sorted(each.fingerprint for each in retired(state))


def waiting(state: State, at: int) -> list[Holder]:
    """Members that a rotation has to wait for, by kind and name; nobody when there is none."""
    present = trusted(state)
    if len(present) < 2:
        return []
    signs = present[0].fingerprint
    return [each for _, each in sorted(state.holders.items()) if _depends(each, signs, at)]


def waits_for(state: State, kind: MemberKind, name: str, at: int) -> bool:
    """Whether a rotation waits for this member."""
    present = trusted(state)
    holder = state.holders.get(holder_key(kind, name))
    return len(present) > 1 and holder is not None and _depends(holder, present[0].fingerprint, at)


def _depends(holder: Holder, signs: str, at: int) -> bool:
    """Whether it would be locked out with only the authority `signs`, as far as anybody can tell: by the last one that
    it has shown, since an authority that signs again has signed certificates before that lie nowhere any more.
    """
    valid = [each for each in unexpired(holder, at) if each.revoked_at is None]
    shown = [each for each in valid if each.shown]
    if shown and shown[-1].authority == signs:
        return False
    return any(each.authority != signs for each in valid)
