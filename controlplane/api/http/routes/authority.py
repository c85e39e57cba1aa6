"""The cluster's authority, the certificates that it issued, and taking them back."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import credential_shapes, reads, writes
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.api.http.times import iso
from controlplane.machine.state import State
from controlplane.model.commands import RevokeCertificates

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


def _status(state: State, now_ms: int) -> credential_shapes.AuthorityStatus:
    authorities = sorted(state.authorities.values(), key=lambda each: each.at, reverse=True)
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
            )
            for number, each in enumerate(authorities)
        ],
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
            )
            for holder in holders
            for each in holder.certificates
            if each.expires_at > now_ms
        ],
    )
