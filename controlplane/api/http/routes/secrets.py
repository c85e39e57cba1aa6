"""The data keys that secrets are sealed with. What they seal, nothing here shows."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import credential_shapes, problems, reads
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.api.http.times import iso
from controlplane.machine.outcome import Rejected
from controlplane.machine.secrets import active_key
from controlplane.machine.state import State
from controlplane.ports.secrets import VaultError

router = APIRouter(tags=["Secrets"], route_class=StrictRoute)


@router.get("/secrets", response_model=credential_shapes.SecretsStatus)
async def read_status(state: reads.Snapshot) -> Response:
    """The data keys, the newest first, and how many microVMs have secrets under each."""
    return respond(_status(state), state)


@router.post("/secrets/actions/rotate", response_model=credential_shapes.SecretsStatus, status_code=202)
async def rotate(services: With, actor: Actor) -> Response:
    """Another data key, sealed with the first key of the key ring; the leader seals every secret anew, then drops the
    old one.
    """
    if services.vault is None:
        raise problems.problem("secrets_unavailable", "this node has no key ring")
    try:
        outcome = await services.vault.rotate(actor.name)
    except VaultError as error:
        raise problems.problem("secrets_unavailable", str(error)) from None
    if isinstance(outcome, Rejected):
        raise problems.from_rejected(outcome)
    state = services.reader.state
    return respond(_status(state), state, status=202)


def _status(state: State) -> credential_shapes.SecretsStatus:
    used = Counter(key_id for vm in state.microvms.values() for key_id in {each.key_id for each in vm.sealed.values()})
    active = active_key(state)
    return credential_shapes.SecretsStatus(
        revision=state.revision,
        microvms=sum(bool(vm.sealed) for vm in state.microvms.values()),
        data_keys=[
            credential_shapes.DataKeyShape(
                id=each.id,
                created_by=each.actor,
                created_at=iso(each.at),
                seals=each == active,
                sealed_with=each.key.key_id,
                microvms=used[each.id],
            )
            for each in sorted(state.data_keys.values(), key=lambda each: each.number, reverse=True)
        ],
    )
