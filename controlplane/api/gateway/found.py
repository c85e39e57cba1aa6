"""What is on a host beside what was assigned, between the wire and the model: what is left behind, and definitions.

Pure. A definition is what a host was once told, and is checked as if a user had declared it now.
"""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from controlplane.api.gateway.bounds import MAX_NAME, WireError, number, text
from controlplane.api.gateway.translate import MAX_ENTRIES, reason_of
from controlplane.model.gc import Leftover, LeftoverKind
from controlplane.model.resources import Host
from controlplane.model.spec import MicroVMSpec
from controlplane.ports import Told, VMDefinition
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

MAX_LEFT_BEHIND = 500
MAX_BYTES = 2**60
_spec = TypeAdapter(MicroVMSpec)


def decode_left_behind(report: wire.Report) -> list[Leftover] | None:
    """In the order in which the state keeps it; None of an agent that does not tell. Raises WireError."""
    if not report.HasField("left_behind"):
        return None
    items = report.left_behind.items
    if len(items) > MAX_LEFT_BEHIND:
        raise WireError(f"left_behind: {len(items)}; at most {MAX_LEFT_BEHIND} are named")
    left = [
        Leftover(
            driver=text("left_behind.driver", each.driver, MAX_NAME, required=True),
            kind=_leftover_kind(each.kind),
            name=text("left_behind.name", each.name, MAX_NAME, required=True),
            uid=text("left_behind.uid", each.uid, MAX_NAME) or None,
            microvm=text("left_behind.microvm", each.microvm, MAX_NAME) or None,
            epoch=number("left_behind.epoch", each.epoch) or None,
            bytes=number("left_behind.bytes", each.bytes, most=MAX_BYTES),
            ours=each.ours,
        )
        for each in items
    ]
    if len({each.key for each in left}) < len(left):
        raise WireError("left_behind: two of a driver have one name")
    return sorted(left, key=lambda each: each.key)


def _leftover_kind(value: str) -> LeftoverKind:
    try:
        return LeftoverKind(value)
    except ValueError:
        raise WireError(f"left_behind.kind: {value[:MAX_NAME]!r} is not one of {', '.join(LeftoverKind)}") from None


def encode_clearings(host: Host) -> list[wire.Clearing]:
    """The orders to delete what is left behind, those that still have their thing."""
    return [
        wire.Clearing(driver=left.driver, name=left.name, reason=reason_of(host.clearing[left.key]))
        for left in host.left_behind
        if left.key in host.clearing
    ]


def decode_definition(answer: wire.Definition) -> Told:
    """Raises WireError."""
    if len(answer.labels) > MAX_ENTRIES:
        raise WireError(f"definition.labels: {len(answer.labels)}; at most {MAX_ENTRIES} are read")
    try:
        spec = _spec.validate_json(answer.spec_json)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WireError(f"definition.spec_json.{where}: {first['msg']}") from error
    vm = VMDefinition(
        cluster_id=text("definition.cluster_id", answer.cluster_id, MAX_NAME, required=True),
        uid=text("definition.uid", answer.uid, MAX_NAME, required=True),
        namespace=text("definition.namespace", answer.namespace, MAX_NAME, required=True),
        name=text("definition.name", answer.name, MAX_NAME, required=True),
        epoch=number("definition.epoch", answer.epoch, least=1),
        generation=number("definition.generation", answer.generation, least=1),
        labels={
            text("definition.labels", key, MAX_NAME): text("definition.labels", value, MAX_NAME)
            for key, value in sorted(answer.labels.items())
        },
        spec=spec,
    )
    return Told(
        vm=vm,
        repair_seq=number("definition.repair_seq", answer.repair_seq),
        restart_seq=number("definition.restart_seq", answer.restart_seq),
    )
