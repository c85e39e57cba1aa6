"""Policies: of placement, failover and garbage collection, and of who may do what."""

from __future__ import annotations

from simulation.random_commands.choices import Choices

from controlplane.machine.state import State
from controlplane.model import access
from controlplane.model.commands import (
    Command,
    DeclareFailoverPolicy,
    DeclareGCPolicy,
    DeclarePlacementPolicy,
    DeclareRole,
    DeclareRoleBinding,
)
from controlplane.model.spec import FailoverPolicySpec, GCPolicySpec, PlacementPolicySpec, Restart, Spread


def declare_policy(choices: Choices, state: State) -> Command:
    name = choices.name()
    if choices.chance(40):
        if choices.chance(40):
            return _access(choices, name)
        return DeclareFailoverPolicy(
            name=name,
            uid=choices.uid(),
            spec=FailoverPolicySpec(
                restart=choices.pick(tuple(Restart)),
                delay_s=choices.pick((None, None, 60)),
                max_per_minute=choices.pick((None, 1)),
            ),
        )
    if choices.chance(20):
        kept = choices.pick((None, 60))
        spec = GCPolicySpec(failed_microvm_after_s=kept, lost_host_after_s=kept)
        return DeclareGCPolicy(name=choices.pick(("default", name)), uid=choices.uid(), spec=spec)
    old = state.policies.get(name)
    spec = PlacementPolicySpec(
        required_host_labels=choices.pick(({}, {}, {"zone": "a"})),
        preferred_host_labels=choices.labels(),
        spread=choices.pick((None, None, spread(choices))),
    )
    return DeclarePlacementPolicy(
        name=name,
        uid=choices.uid(),
        spec=spec,
        when=choices.when(old.meta.intent_revision if old is not None else None),
    )


def _access(choices: Choices, name: str) -> Command:
    if choices.chance(50):
        rule = access.Rule(
            verbs=[access.Verb.READ], kinds=[choices.pick(tuple(access.AccessKind))], labels=choices.labels()
        )
        return DeclareRole(
            name=choices.pick((name, name, "viewer")), uid=choices.uid(), spec=access.RoleSpec(rules=[rule])
        )
    spec = access.RoleBindingSpec(
        role=choices.pick(("viewer", "host", choices.name())),
        subjects=[access.AccessSubject(kind=access.AccessSubjectKind.TOKEN, name=name)],
    )
    return DeclareRoleBinding(name=name, uid=choices.uid(), spec=spec)


def spread(choices: Choices) -> Spread:
    return Spread(by=choices.pick(("host", "zone")), max_per=choices.integer(1, 2), match_labels=choices.labels())
