"""One PUT for every kind: rehearse the declaration when only that is asked for, else propose it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from controlplane.api.http import dryrun, reads, shapes, writes
from controlplane.api.http.answers import respond
from controlplane.api.http.auth import Principal
from controlplane.api.http.declarations import Declaration
from controlplane.api.http.services import Services


async def declare(
    services: Services,
    actor: Principal,
    command: Declaration,
    model: type[shapes.Declared],
    *,
    key: str | None,
    dry_run: bool,
    warnings: Sequence[str] = (),
) -> Response:
    """The object as `model` with `warnings`, or what a dry run found. Raises ApiError and LogError."""
    if dry_run:
        state = await reads.snapshot(services)
        return respond(await dryrun.declare(services, actor, state, command, warnings), state)
    outcome, state = await writes.propose(services, actor, command, key=key)
    return writes.answer_declared(state, command, outcome, model, warnings)
