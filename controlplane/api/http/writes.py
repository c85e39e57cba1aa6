"""Writing: propose a command, await what the machine says of it, answer with the object as it is now.

The proposer returns once this replica has applied the command, so the object is read from the local state.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from controlplane.api.http import problems, reads, shapes, views
from controlplane.api.http.answers import respond
from controlplane.api.http.services import Services
from controlplane.identity.principal import Principal
from controlplane.machine.outcome import Applied, Change, Rejected
from controlplane.machine.recovery_rules import local_volumes
from controlplane.machine.state import State
from controlplane.model.commands import Act, Command, Declaration, Delete
from controlplane.model.resources import OperationPhase
from controlplane.model.spec import HostFailure, MicroVMSpec, OnDetach, detach_action


async def propose(services: Services, actor: Principal, command: Command, *, key: str | None) -> tuple[Applied, State]:
    """The accepted outcome, and the state after it. Raises ApiError and LogError."""
    outcome = await services.proposer.propose(
        command, actor=actor.name, key=key, timeout_s=services.settings.write_timeout_s
    )
    state = services.reader.state
    if isinstance(outcome, Rejected):
        raise refusal(state, command, outcome)
    return outcome, state


def refusal(state: State, command: Command, outcome: Rejected, *, prefix: str = "") -> problems.ApiError:
    found = reads.find_for(state, command)
    return problems.from_rejected(outcome, prefix=prefix, existing=found.meta if found is not None else None)


def answer_declared(state: State, command: Declaration, outcome: Applied, warnings: Sequence[str] = ()) -> Response:
    """201 for what was created, else 200; the object with `warnings` and `changed`."""
    found = reads.find_for(state, command)
    if found is None:
        # Deleted between the write and this answer.
        raise problems.not_found("the object", command.name)
    changed = outcome.change is not Change.UNCHANGED
    document = views.declared(state, found, warnings=list(warnings), changed=changed)
    return respond(document, state, status=201 if outcome.change is Change.CREATED else 200)


async def remove(services: Services, actor: Principal, command: Delete, *, key: str | None) -> Response:
    """202 while a host has to confirm, 200 with the last of it when it is gone at once."""
    before = reads.find_for(services.reader.state, command)
    if before is None:
        state = await services.reader.fresh(timeout_s=services.settings.read_timeout_s)
        before = reads.find_for(state, command)
    if before is None:
        name = command.name if command.namespace is None else f"{command.namespace}/{command.name}"
        raise problems.not_found(command.kind.value, name)
    outcome, state = await propose(services, actor, command, key=key)
    after = reads.find_for(state, command)
    if after is not None and after.meta.uid == outcome.uid:
        return respond(views.resource(state, after), state, status=202)
    return respond(views.resource(state, before), state)


async def act(services: Services, actor: Principal, command: Act, *, key: str | None) -> Response:
    """202 with the operation that was started, or with the one that still runs where nothing had to be started."""
    outcome, state = await propose(services, actor, command, key=key)
    started = outcome.operation
    vm = state.microvm(command.namespace, command.name)
    latest = state.operations.get(started or (vm.operation if vm is not None else None) or "")
    shown = latest if latest is not None and (started or latest.phase is OperationPhase.RUNNING) else None
    document = shapes.OperationStarted(operation=views.operation(shown) if shown is not None else None)
    return respond(document, state, status=202)


def warnings_for(spec: MicroVMSpec) -> list[str]:
    """What the user asked for and should know more of."""
    warnings: list[str] = []
    if spec.recovery.policy is not None and spec.recovery.on_host_failure is not HostFailure.RESTART_ELSEWHERE:
        warnings.append("spec.recovery.policy: with on_host_failure = never there is nothing for it to decide")
    if spec.recovery.on_host_failure is not HostFailure.RESTART_ELSEWHERE:
        if detach_action(spec) is not OnDetach.KEEP:
            warnings.append(
                "spec.recovery.on_detach: it ends when its host is cut off, and with on_host_failure = never nothing"
                " restarts it elsewhere"
            )
        return warnings
    if (local := local_volumes(spec)) and not spec.recovery.allow_data_loss:
        warnings.append(
            f"spec.recovery.allow_data_loss: with its local volume {', '.join(local)} it is not restarted elsewhere"
        )
    if spec.placement.host is not None:
        warnings.append("spec.placement.host: it may run on that host alone, so it is not restarted elsewhere")
    return warnings
