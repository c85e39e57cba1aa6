"""Refusals that several declarations share: preconditions, quotas, what only a replacement can change, and bounds.

The bounds repeat what the edge has validated in better words: the machine's arithmetic and its indexes rely on names
without separators and on amounts that are positive and far from where integers stop being encodable. A proposer that
skipped the edge gets a refusal, not a broken state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from math import isfinite
from typing import Any

from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Code, Rejected
from controlplane.model.commands import Declaration
from controlplane.model.resources import Amount, Bid, Meta, Namespace
from controlplane.model.spec import MICROVM_FIELD_EFFECTS, Effect, MicroVMSpec
from controlplane.model.types import NAME_PATTERN, Kind

MAX_AMOUNT = 1 << 40
_name = re.compile(NAME_PATTERN)


def _name_refusal(name: str) -> Rejected | None:
    if _name.fullmatch(name) is None:
        return Rejected(code=Code.INVALID, message=f"{name!r} is not a valid name", pointer="/name")
    return None


def amount_refusal(spec: MicroVMSpec) -> Rejected | None:
    for field, amount in (("vcpu", spec.vcpu), ("memory_in_mb", spec.memory_in_mb)):
        if not 0 < amount < MAX_AMOUNT:
            return Rejected(
                code=Code.INVALID,
                message=f"{field} must be above 0 and below {MAX_AMOUNT}, not {amount}",
                pointer=f"/spec/{field}",
            )
    return None


def score_refusal(bids: Iterable[Bid], *scores: float) -> Rejected | None:
    """Scores that are not numbers equal nothing, not even themselves: they would make equal states differ."""
    for bid in bids:
        scores += (*bid.parts.values(), *(() if bid.score is None else (bid.score,)))
    if not all(map(isfinite, scores)):
        return Rejected(code=Code.INVALID, message="scores must be finite numbers", pointer="/score")
    return None


def declaration_refusal(command: Declaration, meta: Meta | None) -> Rejected | None:
    """Why `command` may not declare over `meta`, whatever it declares."""
    when = command.when
    if (refused := _name_refusal(command.name)) is not None:
        return refused
    if when.create_only and meta is not None:
        return Rejected(
            code=Code.ALREADY_EXISTS,
            message=f"{meta.kind.value} {meta.name} already exists",
            pointer="/name",
            uid=meta.uid,
        )
    if when.revision is not None:
        if meta is None:
            return Rejected(code=Code.REVISION_CONFLICT, message="it does not exist", pointer="/header/if-match")
        if when.revision != meta.intent_revision:
            return conflict(meta, when.revision)
    return None


def conflict(meta: Meta, expected: int) -> Rejected:
    return Rejected(
        code=Code.REVISION_CONFLICT,
        message=f"{meta.kind.value} {meta.name} is at revision {meta.intent_revision}, not {expected}",
        pointer="/header/if-match",
        uid=meta.uid,
    )


def missing(kind: Kind, name: str) -> Rejected:
    return Rejected(code=Code.NOT_FOUND, message=f"{kind.value} {name} does not exist", pointer="/name")


def replacement_refusal(old: MicroVMSpec, new: MicroVMSpec) -> Rejected | None:
    for field in fields(MicroVMSpec):
        before: Any = getattr(old, field.name)
        if MICROVM_FIELD_EFFECTS[field.name] is Effect.REPLACE and before != getattr(new, field.name):
            return Rejected(
                code=Code.REQUIRES_REPLACEMENT,
                message=f"{field.name} cannot change on an existing microVM",
                pointer=f"/spec/{field.name}",
            )
    return None


def quota_refusal(draft: Draft, namespace: Namespace, more: Amount) -> Rejected | None:
    total = draft.state.usage.get(namespace.meta.name, Amount()) + more
    for field, limit, asked in (
        ("name", namespace.spec.max_microvms, total.microvms),
        ("spec/vcpu", namespace.spec.max_vcpu, total.vcpu),
        ("spec/memory_in_mb", namespace.spec.max_memory_in_mb, total.memory_in_mb),
    ):
        if limit is not None and asked > limit:
            return Rejected(
                code=Code.QUOTA_EXCEEDED,
                message=f"namespace {namespace.meta.name} allows {limit}, this would make {asked}",
                pointer=f"/{field}",
            )
    return None
