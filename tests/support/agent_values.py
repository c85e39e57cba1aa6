"""Values of the agent's own types: a test names only what it is about."""

from __future__ import annotations

from controlplane.agent.assignments import Assignment
from controlplane.agent.journal import Record, RecordPhase
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import MicroVMSpec
from controlplane.ports import Instance
from support.builders import microvm_spec

CLUSTER = "ours"


def assignment(
    uid: str = "a", *, tombstone: bool = False, spec: MicroVMSpec | None = None, **changes: int
) -> Assignment:
    fields = {"epoch": 1, "generation": 1, "repair_seq": 0, "restart_seq": 0, **changes}
    wanted = None if tombstone else spec or microvm_spec()
    return Assignment(uid=uid, namespace="demo", name=uid, spec=wanted, **fields)


def record(uid: str = "a", **changes: object) -> Record:
    """An active one, under the simulated driver."""
    fields: dict[str, object] = {
        "epoch": 1,
        "phase": RecordPhase.ACTIVE,
        "driver": "simulated",
        "generation": 1,
        **changes,
    }
    return Record(uid=uid, **fields)


def instance(uid: str | None = "a", **changes: object) -> Instance:
    """What a driver lists of a microVM of `microvm_spec()` that runs."""
    fields: dict[str, object] = {
        "native_id": f"native-{uid}",
        "cluster_id": CLUSTER,
        "namespace": "demo",
        "name": uid,
        "epoch": 1,
        "generation": 1,
        "power": ObservedPower.RUNNING,
        "ready": True,
        "vcpu": 1,
        "memory_in_mb": 128,
        "cause": None,
        "details": {},
        "interfaces": {},
        **changes,
    }
    return Instance(uid=uid, **fields)
