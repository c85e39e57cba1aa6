"""How far a group is, as people and pipelines ask: counts of its members, and conditions with their reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.decide.conditions import Condition, Truth
from controlplane.decide.drift import DriftClass, classify
from controlplane.decide.groups import is_at_template, members_of
from controlplane.machine.state import State
from controlplane.model.groups import MicroVMGroup


@dataclass(frozen=True, slots=True)
class Progress:
    replicas: int
    """Members that are not being ended."""
    updated: int
    """Of these, at the present template."""
    ready: int
    ending: int
    drifted: int
    wanted: int
    max_unavailable: int

    @property
    def unavailable(self) -> int:
        return max(0, self.wanted - self.ready)

    @property
    def complete(self) -> bool:
        return self.replicas == self.updated == self.ready == self.wanted and not self.ending


def progress(state: State, group: MicroVMGroup) -> Progress:
    members = members_of(state, group)
    staying = [*members.current, *members.outdated]
    return Progress(
        replicas=len(staying),
        updated=sum(is_at_template(group, vm) for vm in members.current),
        ready=len(members.ready),
        ending=len(members.ending),
        drifted=sum(classify(state, vm).klass is DriftClass.DRIFTED for vm in staying),
        wanted=group.spec.replicas,
        max_unavailable=group.spec.rollout.max_unavailable,
    )


def group_conditions(group: MicroVMGroup, at: Progress) -> tuple[Condition, ...]:
    return (_progressing(group, at), _paused(group), _degraded(at))


def _progressing(group: MicroVMGroup, at: Progress) -> Condition:
    def answer(status: Truth, reason: str, message: str) -> Condition:
        return Condition(type="Progressing", status=status, reason=reason, message=message)

    if group.deletion is not None:
        return answer(Truth.TRUE, "Deleting", f"{at.replicas + at.ending} members are left")
    if group.stopped is not None:
        return answer(Truth.FALSE, group.stopped.reason, group.stopped.message)
    if at.complete:
        return answer(Truth.FALSE, "Complete", f"all of {at.wanted} members are ready at the present template")
    doing = ", ".join(_doing(at))
    return answer(Truth.TRUE, "RollingOut" if at.updated < at.replicas else "Scaling", doing)


def _doing(at: Progress) -> Iterator[str]:
    yield f"{at.updated} of {at.wanted} members are at the present template"
    yield f"{at.ready} are ready"
    if at.replicas > at.updated:
        yield f"{at.replicas - at.updated} are outdated"
    if at.ending:
        yield f"{at.ending} are being ended"


def _paused(group: MicroVMGroup) -> Condition:
    stop = group.stopped
    if stop is None:
        return Condition(type="Paused", status=Truth.FALSE, reason="NotPaused", message="it goes on by itself")
    return Condition(type="Paused", status=Truth.TRUE, reason=stop.reason, message=stop.message, since_ms=stop.since)


def _degraded(at: Progress) -> Condition:
    allowed = max(0, at.wanted - at.max_unavailable)
    if at.ready >= allowed:
        return Condition(
            type="Degraded", status=Truth.FALSE, reason="EnoughReady", message=f"{at.ready} of {at.wanted} are ready"
        )
    message = f"{at.ready} of {at.wanted} are ready, and {allowed} should be"
    return Condition(type="Degraded", status=Truth.TRUE, reason="TooFewReady", message=message)
