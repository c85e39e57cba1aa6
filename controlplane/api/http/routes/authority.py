"""The cluster's authority, its rotation, the certificates that it issued, and taking them back."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import credential_shapes, problems, reads, writes
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, Services, With, signer_of
from controlplane.api.http.times import iso
from controlplane.machine import authorities
from controlplane.machine.state import State
from controlplane.model.commands import AbortRotation, RetireAuthority, RevokeCertificates
from controlplane.ports.issuance import NoAuthorityError

router = APIRouter(tags=["Certificates"], route_class=StrictRoute)


@router.get("/authority", response_model=credential_shapes.AuthorityStatus)
async def read_status(services: With, state: reads.Snapshot) -> Response:
    """Who signs, and every certificate that was issued and has not expired."""
    return respond(_status(state, services.clock.now_ms()), state)


@router.post("/authority/actions/revoke", response_model=credential_shapes.AuthorityStatus)
async def revoke(services: With, actor: Actor, body: credential_shapes.RevokeBody) -> Response:
    """Take back every certificate of a member, or one: its sessions are cut, and it is not renewed."""
    command = RevokeCertificates(kind=body.kind, name=body.name, serial=body.serial, reason=body.reason)
    _, state = await writes.propose(services, actor, command, key=None)
    return respond(_status(state, services.clock.now_ms()), state)


@router.post("/authority/actions/rotate", response_model=credential_shapes.AuthorityStatus)
async def rotate(services: With, actor: Actor) -> Response:
    """Another authority signs from now on, and every member renews. A rotation that is under way goes on."""
    state = await services.reader.fresh(timeout_s=services.settings.read_timeout_s)
    if (under_way := _rotation(state, services.clock.now_ms())) is None or under_way.aborted:
        try:
            command = signer_of(services).successor()
        except NoAuthorityError as error:
            raise problems.problem("no_authority", str(error)) from None
        _, state = await writes.propose(services, actor, command, key=None)
    return respond(_status(state, services.clock.now_ms()), state)


@router.post("/authority/actions/abort", response_model=credential_shapes.AuthorityStatus)
async def abort(services: With, actor: Actor) -> Response:
    """The authority that was to be replaced signs again, and every member renews."""
    rotation = await _under_way(services)
    back = rotation.signs if rotation.aborted else rotation.leaves
    _, state = await writes.propose(services, actor, AbortRotation(fingerprint=back), key=None)
    return respond(_status(state, services.clock.now_ms()), state)


@router.post("/authority/actions/retire", response_model=credential_shapes.AuthorityStatus)
async def retire(services: With, actor: Actor, body: credential_shapes.RetireBody) -> Response:
    """Trust the one that does not sign no more. Refused while members depend on it, unless it is forced."""
    rotation = await _under_way(services)
    command = RetireAuthority(fingerprint=rotation.leaves, force=body.force)
    _, state = await writes.propose(services, actor, command, key=None)
    return respond(_status(state, services.clock.now_ms()), state)


async def _under_way(services: Services) -> credential_shapes.RotationShape:
    """Raises ApiError 404, LogError."""
    state = await services.reader.fresh(timeout_s=services.settings.read_timeout_s)
    if (rotation := _rotation(state, services.clock.now_ms())) is None:
        raise problems.problem("not_found", "no rotation of the authority is under way")
    return rotation


def _rotation(state: State, now_ms: int) -> credential_shapes.RotationShape | None:
    match authorities.trusted(state):
        case [signs, leaves, *_]:
            waiting = authorities.waiting(state, now_ms)
            return credential_shapes.RotationShape(
                signs=signs.fingerprint,
                leaves=leaves.fingerprint,
                aborted=signs.succeeds != leaves.fingerprint,
                waiting=[credential_shapes.MemberShape(kind=each.kind, name=each.name) for each in waiting],
            )
        case _:
            return None


def _status(state: State, now_ms: int) -> credential_shapes.AuthorityStatus:
    trusted = authorities.trusted(state)
    retired = sorted(
        (each for each in state.authorities.values() if each.retired_at is not None),
        key=lambda each: each.turn,
        reverse=True,
    )
    holders = sorted(state.holders.values(), key=lambda each: (each.kind.value, each.name))
    return credential_shapes.AuthorityStatus(
        revision=state.revision,
        authorities=[
            credential_shapes.AuthorityShape(
                fingerprint=each.fingerprint,
                certificate=each.certificate,
                created_by=each.actor,
                created_at=iso(each.at),
                signs=number == 0,
                sealed_with=each.key.key_id,
                retired_at=iso(each.retired_at),
            )
            for number, each in enumerate([*trusted, *retired])
        ],
        rotation=_rotation(state, now_ms),
        certificates=[
            credential_shapes.CertificateShape(
                kind=holder.kind,
                name=holder.name,
                serial=each.serial,
                issued_at=iso(each.at),
                expires_at=iso(each.expires_at),
                revoked_at=iso(each.revoked_at),
                revoked_by=each.revoked_by,
                reason=each.reason,
                authority=each.authority,
            )
            for holder in holders
            for each in holder.certificates
            if each.expires_at > now_ms
        ],
    )
