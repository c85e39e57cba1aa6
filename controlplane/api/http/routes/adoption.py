"""Adoption: declare what a host runs and nobody declared, as it runs there.

The host is asked what it was told to run, so nobody has to know it any more; the machine decides whether that may be
declared. The caller needs to be allowed both to act on the host and to declare the microVM.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import Response

from controlplane.api.http import declaring, dryrun, params, problems, reads, shapes, writes
from controlplane.api.http.answers import respond
from controlplane.api.http.declarations import Input
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Services
from controlplane.machine.outcome import Rejected
from controlplane.model.commands import Adopt, DeclareMicroVM
from controlplane.model.resources import Host, Unmanaged
from controlplane.model.types import LINE_PATTERN, Name
from controlplane.ports import DriverError, HostUnreachableError, Told

TIMEOUT_S = 10.0

router = APIRouter(tags=["Hosts"], route_class=StrictRoute)
NativeId = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=LINE_PATTERN)]


class AdoptBody(Input):
    instance: Annotated[NativeId, Field(description="How its driver names it: `native_id` of `status.unmanaged`.")]
    namespace: Name
    name: Name


@router.post(
    "/hosts/{name}/actions/adopt",
    response_model=shapes.DeclaredMicroVM | shapes.DryRun,
    responses={201: {"model": shapes.DeclaredMicroVM}},
)
async def adopt_microvm(asked: declaring.Declaring, name: params.NameParam, body: AdoptBody) -> Response:
    """Declare a copy of this cluster's that the host reports as unmanaged; it is not touched."""
    services = asked.services
    state = await reads.snapshot(services)
    found = _copy(reads.host(state, name, include_pending=False), body.instance)
    command = _command(name, found, body, await _told(services, name, found))
    for question in declaring.declares(command.declaration):
        await asked.asker.require(question)
    warnings = writes.warnings_for(command.declaration.spec)
    if not asked.dry_run:
        outcome, state = await writes.propose(services, asked.actor, command, key=asked.key)
        return writes.answer_declared(state, command.declaration, outcome, warnings)
    _, rehearsed = dryrun.rehearse(services, asked.actor, state, command)
    if isinstance(rehearsed, Rejected):
        raise writes.refusal(state, command, rehearsed)
    placement = shapes.PlacementPreview(host=name, reason="it runs there", bids=[])
    return respond(
        shapes.DryRun(outcome="create", changes=[], placement=placement, members=None, warnings=warnings), state
    )


def _copy(host: Host, instance: str) -> Unmanaged:
    """Raises ApiError."""
    found = [each for each in host.unmanaged if each.native_id == instance]
    if len(found) != 1:
        tells = ", ".join(each.native_id for each in host.unmanaged[:5]) or "none"
        raise problems.invalid("/instance", f"host {host.meta.name} has no such unmanaged microVM (it has: {tells})")
    return found[0]


async def _told(services: Services, host: str, found: Unmanaged) -> Told:
    """What the host was told to run. Raises ApiError."""
    if found.uid is None or not found.ours:
        message = f"{found.native_id} does not say that it is of this cluster: what others made has to be made anew"
        raise problems.problem("constraint_violated", message)
    try:
        return await services.agents.definition(host, found.uid, timeout_s=TIMEOUT_S)
    except HostUnreachableError as error:
        raise problems.problem("host_unreachable", str(error), retry_after_s=5) from error
    except DriverError as error:
        raise problems.problem("driver_error", f"host {host}: {error.code}: {error.message}") from error


def _command(host: str, found: Unmanaged, body: AdoptBody, told: Told) -> Adopt:
    vm = told.vm
    if (vm.uid, vm.epoch) != (found.uid, found.epoch):
        message = f"host {host} was told to run {vm.uid} at epoch {vm.epoch}, and {found.native_id} is another one"
        raise problems.problem("constraint_violated", message)
    return Adopt(
        host=host,
        key=found.key,
        epoch=vm.epoch,
        generation=vm.generation,
        repair_seq=told.repair_seq,
        restart_seq=told.restart_seq,
        declaration=DeclareMicroVM(
            namespace=body.namespace, name=body.name, uid=vm.uid, spec=vm.spec, labels=dict(vm.labels)
        ),
    )
