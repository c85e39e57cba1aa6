"""The command that begins an incarnation of the log after a restore or a recovery (docs/adr/0103).

The state may be older than what hosts have done since: it may say that a microVM is where it was given up long ago, or
that one which runs was never placed. So the leader first waits until no lease of the lost history is left anywhere, and
then every host is as if it had been cut off: it has to dial in again and tell everything that is there before it gets a
lease. Until all have told, or an operator said that they are off, nothing is placed.
"""

from __future__ import annotations

from controlplane.machine.draft import Draft
from controlplane.machine.lifecycle import HOST, HostEvent
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.state import State
from controlplane.machine.steps import Result, other_term, stale
from controlplane.manifest import MAX_INCARNATION
from controlplane.model.commands import BeginIncarnation
from controlplane.model.resources import Incarnation
from controlplane.model.types import replace

REASON = "the cluster was restored: its agent has to dial in again and tell what is there"


def begin_incarnation(draft: Draft, command: BeginIncarnation) -> Result:
    if (refused := other_term(command.term, draft.term)) is not None:
        return refused
    if command.incarnation <= draft.state.incarnation:
        return stale(f"incarnation {draft.state.incarnation} has begun")
    if command.incarnation > MAX_INCARNATION:
        return Rejected(code=Code.INVALID, message=f"incarnation {command.incarnation} is above {MAX_INCARNATION}")
    awaited: list[str] = []
    for name, host in sorted(draft.state.hosts.items()):
        phase = HOST.get((host.phase, HostEvent.RESTORED))
        if phase is not None:
            # The word of an operator is about a silence that the lost history may have ended.
            lost = replace(host, phase=phase, since=draft.at, session=None, node=None, reason=REASON, confirmed_by=None)
            draft.put_host(lost)
            awaited.append(name)
    draft.put_incarnation(Incarnation(number=command.incarnation, at=draft.at, term=command.term, awaited=awaited))
    return Applied(revision=draft.revision, change=Change.CHANGED)


def not_heard_of(state: State, host: str) -> str | None:
    """Why nothing is given up on `host`: what it holds may be newer than what a restore brought back."""
    if state.begun is None or host not in state.begun.awaited:
        return None
    return f"host {host} has not told what it holds since the restore, and may have been told newer things about it"


def heard_of(draft: Draft, host: str) -> None:
    """It is known what is on `host`, or that it is off."""
    begun = draft.state.begun
    if begun is not None and host in begun.awaited:
        draft.put_incarnation(replace(begun, awaited=[name for name in begun.awaited if name != host]))
