"""The few words that every driver must use in the same way: refusals with their codes, and what needs a restart."""

from __future__ import annotations

from controlplane.model.spec import MICROVM_FIELD_EFFECTS, Effect, MicroVMSpec
from controlplane.ports import DriverError

_RESTARTING_FIELDS = tuple(field for field, effect in MICROVM_FIELD_EFFECTS.items() if effect is not Effect.LIVE)


def not_found(uid: str) -> DriverError:
    return DriverError("NotFound", f"no microVM with uid {uid} exists on this host", retryable=False)


def stale_epoch(uid: str, *, held: int, asked: int) -> DriverError:
    return DriverError(
        "StaleEpoch",
        f"microVM {uid} exists here with epoch {held}; an order for the older epoch {asked} is refused",
        retryable=False,
    )


def unsupported(what: str, *, pointer: str) -> DriverError:
    return DriverError("Unsupported", what, pointer=pointer, retryable=False)


def no_lease(uid: str) -> DriverError:
    return DriverError("NoLease", f"microVM {uid} may run only while the host has a lease, and it has none")


def restarts(old: MicroVMSpec, new: MicroVMSpec) -> bool:
    """Whether going from `old` to `new` changes anything that a running guest cannot take over."""
    return any(getattr(old, field) != getattr(new, field) for field in _RESTARTING_FIELDS)
