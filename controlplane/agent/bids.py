"""What this host offers for a microVM, and what it has offered lately. Pure.

The score is the share of the host that would be in use after the placement: mostly that of the scarcer resource,
partly the mean, and a little of how busy the CPUs were measured to be. Lower wins. An offer is remembered for a short
while and raises the next scores, which steers concurrent schedulers apart; it refuses nothing, because the machine
verifies capacity when it commits and an offer that lost must not block a host.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from hashlib import blake2b

from controlplane.model.resources import Amount
from controlplane.model.spec import MicroVMSpec

WEIGHT_SCARCEST = 0.6
WEIGHT_MEAN = 0.3
WEIGHT_BUSY = 0.1
TIE_BREAK = 1e-6
"""Equal hosts would all lose to the first by name; a trace of the pair's hash spreads microVMs over them."""


@dataclass(frozen=True, slots=True)
class Offer:
    score: float | None = None
    parts: dict[str, float] = field(default_factory=dict[str, float])
    refused: str | None = None


def offer(
    host: str,
    uid: str,
    spec: MicroVMSpec,
    *,
    capacity: Amount,
    used: Amount,
    reserved: Amount,
    cpu_busy: float,
) -> Offer:
    """`used` is what is assigned here, `reserved` what was offered to others; `cpu_busy` is 0..1."""
    wanted = Amount(microvms=1, vcpu=spec.vcpu, memory_in_mb=spec.memory_in_mb)
    if (reason := _lack(capacity, used, wanted)) is not None:
        return Offer(refused=reason)
    total = used + reserved + wanted
    vcpu = total.vcpu / capacity.vcpu
    memory = total.memory_in_mb / capacity.memory_in_mb
    busy = min(max(cpu_busy, 0.0), 1.0)
    score = WEIGHT_SCARCEST * max(vcpu, memory) + WEIGHT_MEAN * (vcpu + memory) / 2 + WEIGHT_BUSY * busy
    parts = {"vcpu": round(vcpu, 6), "memory_in_mb": round(memory, 6), "cpu_busy": round(busy, 6)}
    return Offer(score=score + TIE_BREAK * _hash_fraction(host, uid), parts=parts)


def _lack(capacity: Amount, used: Amount, wanted: Amount) -> str | None:
    free = capacity - used
    if wanted.vcpu > free.vcpu:
        return f"needs {wanted.vcpu} vcpu, {max(free.vcpu, 0)} of {capacity.vcpu} are free"
    if wanted.memory_in_mb > free.memory_in_mb:
        return (
            f"needs {wanted.memory_in_mb} MB of memory, {max(free.memory_in_mb, 0)} of {capacity.memory_in_mb} are free"
        )
    if capacity.microvms and wanted.microvms > free.microvms:
        return f"holds {used.microvms} microVMs, its limit is {capacity.microvms}"
    return None


def _hash_fraction(host: str, uid: str) -> float:
    digest = blake2b(f"{host}/{uid}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True, slots=True)
class _Reservation:
    amount: Amount
    until_s: float


class Reservations:
    """Offers that were made lately, by uid. Times are the clock's monotonic seconds."""

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self._by_uid: dict[str, _Reservation] = {}

    def hold(self, uid: str, amount: Amount, *, now_s: float) -> None:
        """Replaces an earlier offer for the same microVM."""
        self._by_uid[uid] = _Reservation(amount, now_s + self.ttl_s)

    def total(self, *, now_s: float, assigned: Set[str], besides: Set[str]) -> Amount:
        """What is offered, leaving out what has been `assigned` by now and what is asked for again."""
        self._by_uid = {uid: held for uid, held in self._by_uid.items() if held.until_s > now_s and uid not in assigned}
        total = Amount()
        for uid, held in self._by_uid.items():
            if uid not in besides:
                total = total + held.amount
        return total
