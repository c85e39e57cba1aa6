"""The commands by which an operator overrides the breaker for a time, and takes that back (docs/adr/0105)."""

from __future__ import annotations

from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.steps import Result
from controlplane.model.commands import CancelOverride, OverrideBreaker
from controlplane.model.resources import BREAKER, Override

MAX_OVERRIDE_S = 24 * 3600
MAX_REASON = 500
"""Characters."""


def override_breaker(draft: Draft, command: OverrideBreaker) -> Result:
    """The newest counts: another one takes the place of the one before."""
    if not 0 < command.for_s <= MAX_OVERRIDE_S:
        message = f"an override lasts between 1 and {MAX_OVERRIDE_S} s, not {command.for_s}"
        return Rejected(code=Code.INVALID, message=message, pointer="/for_s")
    if not command.reason.strip() or len(command.reason) > MAX_REASON:
        message = f"an override needs a reason of at most {MAX_REASON} characters: others will ask"
        return Rejected(code=Code.INVALID, message=message, pointer="/reason")
    until = draft.at + command.for_s * 1000
    draft.put_override(BREAKER, Override(actor=draft.actor, at=draft.at, until=until, reason=command.reason.strip()))
    return _applied(draft)


def cancel_override(draft: Draft, command: CancelOverride) -> Result:
    if command.of not in draft.state.overrides:
        return Rejected(code=Code.NOT_FOUND, message=f"the {command.of} is not overridden")
    draft.drop_override(command.of)
    return _applied(draft)


def _applied(draft: Draft) -> Applied:
    change = Change.CHANGED if draft.changed else Change.UNCHANGED
    return Applied(revision=draft.revision if draft.changed else draft.state.revision, change=change)
