"""Between the wire and the agent's own types. Pure; refuses what it does not understand by naming the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from controlplane.agent.assignments import Assignment, Clearing
from controlplane.agent.inventory import Metrics
from controlplane.agent.journal import Record
from controlplane.agent.observe import MAX_TEXT, ReportPart, clip
from controlplane.model.gc import Leftover
from controlplane.model.resources import Amount, Failure, Observation, Unmanaged
from controlplane.model.spec import MicroVMSpec
from controlplane.model.types import DECODE_ERRORS
from controlplane.ports import DriverInfo, PlanItem, VMDefinition
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

_spec_decoder = msgspec.json.Decoder(MicroVMSpec)


class WireError(ValueError):
    """`field: what is wrong with it`."""


def decode_spec(data: bytes, *, at: str) -> MicroVMSpec:
    """Raises WireError naming `at`."""
    try:
        return _spec_decoder.decode(data)
    except DECODE_ERRORS as error:
        raise WireError(f"{at}: not a spec that this agent knows: {error}") from error


def decode_assignment(
    message: wire.Assignment, spec: MicroVMSpec | None, sensitive: Mapping[str, str] = MappingProxyType({})
) -> Assignment:
    return Assignment(
        uid=message.uid,
        namespace=message.namespace,
        name=message.name,
        epoch=message.epoch,
        generation=message.generation,
        repair_seq=message.repair_seq,
        restart_seq=message.restart_seq,
        spec=spec,
        labels=dict(message.labels),
        reason=message.reason,
        halt=message.halt,
        sensitive=sensitive,
    )


def decode_clearing(message: wire.Clearing) -> Clearing:
    return Clearing(driver=message.driver, name=message.name, reason=message.reason)


def encode_definition(vm: VMDefinition, record: Record | None) -> wire.Definition:
    """`record`: what the journal has of it."""
    known = record if record is not None and record.epoch == vm.epoch else None
    return wire.Definition(
        uid=vm.uid,
        cluster_id=vm.cluster_id,
        namespace=vm.namespace,
        name=vm.name,
        epoch=vm.epoch,
        generation=vm.generation,
        labels=dict(vm.labels),
        spec_json=msgspec.json.encode(vm.spec),
        repair_seq=known.repair_seq if known is not None else 0,
        restart_seq=known.restart_seq if known is not None else 0,
    )


def encode_driver(info: DriverInfo, problem: str = "") -> wire.Driver:
    """`problem`: why it ends nothing by itself at present."""
    return wire.Driver(
        name=info.name,
        version=info.version,
        simulated=info.simulated,
        accelerator=info.accelerator or "",
        fences=info.fences and not problem,
        lease_problem=clip(problem) or "",
    )


def encode_amount(amount: Amount) -> wire.Amount:
    return wire.Amount(microvms=amount.microvms, vcpu=amount.vcpu, memory_in_mb=amount.memory_in_mb)


def encode_metrics(metrics: Metrics) -> wire.Metrics:
    return wire.Metrics(cpu_busy=metrics.cpu_busy, memory_available_mb=metrics.memory_available_mb)


def encode_report(part: ReportPart) -> wire.Report:
    return wire.Report(
        complete=part.complete,
        assignments_revision=part.revision,
        observed=[encode_observation(seen) for seen in part.observed],
        unmanaged=_encode_unmanaged(part.unmanaged),
        destroyed=[wire.Confirmed(uid=gone.uid, epoch=gone.epoch) for gone in part.destroyed],
        left_behind=wire.LeftBehind(items=map(_encode_leftover, part.left_behind))
        if part.left_behind is not None
        else None,
    )


def _encode_leftover(left: Leftover) -> wire.Leftover:
    return wire.Leftover(
        driver=left.driver,
        kind=left.kind.value,
        name=left.name,
        uid=left.uid or "",
        microvm=left.microvm or "",
        epoch=left.epoch or 0,
        bytes=left.bytes,
        ours=left.ours,
    )


def encode_observation(seen: Observation) -> wire.Observed:
    return wire.Observed(
        uid=seen.uid,
        epoch=seen.epoch,
        at_ms=seen.at,
        power=seen.power.value,
        generation=seen.generation or 0,
        repair_seq=seen.repair_seq,
        restart_seq=seen.restart_seq,
        ready=seen.ready,
        vcpu=seen.vcpu or 0,
        memory_in_mb=seen.memory_in_mb or 0,
        driver=seen.driver or "",
        simulated=seen.simulated,
        cause=seen.cause or "",
        failure=encode_failure(seen.failure) if seen.failure is not None else None,
        details=seen.details,
        interfaces={
            device: wire.Interface(host_device=facts.host_device, mac_address=facts.mac_address)
            for device, facts in seen.interfaces.items()
        },
        halted=seen.halted,
    )


def encode_plan(items: Iterable[PlanItem]) -> wire.HostPlan:
    return wire.HostPlan(
        items=[
            wire.PlanItem(
                verb=item.verb.value,
                uid=item.uid or "",
                namespace=item.namespace or "",
                name=item.name or "",
                epoch=item.epoch or 0,
                driver=item.driver,
                native_id=item.native_id or "",
                reason=item.reason[:MAX_TEXT],
            )
            for item in items
        ]
    )


def encode_failure(failure: Failure) -> wire.Failure:
    return wire.Failure(
        code=failure.code, message=failure.message, pointer=failure.pointer or "", permanent=failure.permanent
    )


def _encode_unmanaged(strangers: Iterable[Unmanaged]) -> list[wire.Unmanaged]:
    return [
        wire.Unmanaged(
            native_id=found.native_id,
            driver=found.driver,
            uid=found.uid or "",
            namespace=found.namespace or "",
            name=found.name or "",
            epoch=found.epoch or 0,
            power=found.power.value,
            ours=found.ours,
        )
        for found in strangers
    ]
