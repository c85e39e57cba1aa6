"""Who may do what: roles, what binds them to people and programs, and the roles that are always there.

A role is a list of rules; a rule allows verbs on kinds, in namespaces, of objects with given names and labels. Nothing
is allowed that no rule allows. A binding gives a role to subjects, everywhere or in some namespaces. The built-in roles
are code: no log entry changes them, so nobody can lock everybody out (docs/adr/0130).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from controlplane.model.types import NAME_PATTERN, Labels, Name, SubjectName, spec

ANYWHERE = "*"
NAMESPACE_PATTERN = rf"^\*$|{NAME_PATTERN}"
MAX_RULES = 64
MAX_SUBJECTS = 256
_MAX_LISTED = 64

NamespaceOrAll = Annotated[str, StringConstraints(pattern=NAMESPACE_PATTERN)]


class Verb(StrEnum):
    ANY = "*"
    READ = "read"
    """Get, list and watch."""
    DECLARE = "declare"
    """Create and change."""
    DELETE = "delete"
    ACT = "act"
    """Power, repair, cordon, drain, collect, change the members of the log."""
    HOLD = "hold"
    """Keep something from being collected or deleted, and release it."""
    CONSOLE = "console"
    """Read what a guest writes, which may hold its secrets."""
    CONFIRM = "confirm"
    """Say that a lost host is certainly off: a wrong word lets two copies run."""


class AccessKind(StrEnum):
    """What rules are about: every declared kind, and what is asked for besides."""

    ANY = "*"
    HOST = "Host"
    NAMESPACE = "Namespace"
    MICROVM = "MicroVM"
    MICROVM_GROUP = "MicroVMGroup"
    """Whoever may declare one must be allowed to declare its members, too."""
    PLACEMENT_POLICY = "PlacementPolicy"
    FAILOVER_POLICY = "FailoverPolicy"
    GC_POLICY = "GCPolicy"
    OPERATION = "Operation"
    ROLE = "Role"
    ROLE_BINDING = "RoleBinding"
    API_TOKEN = "ApiToken"  # noqa: S105 - a kind, not a secret
    """Tokens of the API: whoever makes or changes one must be allowed all that it is (docs/adr/0136)."""
    CLUSTER = "Cluster"
    """Its nodes and the log that they replicate."""
    SNAPSHOT = "Snapshot"
    """The whole state, whatever namespace it is of."""
    COLLECTION = "Collection"
    """Garbage collection: plans and runs."""
    AUDIT = "Audit"
    """Who changed or tried what, in every namespace."""
    JOIN_TOKEN = "JoinToken"  # noqa: S105 - a kind, not a secret
    """What lets hosts and nodes in that have no certificate yet."""
    CERTIFICATE = "Certificate"
    """Those that the cluster's authority issued, and the authority itself."""
    SESSION = "Session"
    """An agent's session; its name is the host's."""
    RELAY = "Relay"
    """What nodes ask each other."""


NAMESPACED = frozenset({AccessKind.MICROVM, AccessKind.MICROVM_GROUP, AccessKind.OPERATION, AccessKind.NAMESPACE})
"""A namespace itself counts as being in it."""

GUARDED = frozenset({AccessKind.ROLE, AccessKind.ROLE_BINDING})
"""Only the built-in `admin` changes them: whoever could give himself every right would have it."""


@spec
class Rule:
    """Allows every one of its verbs on every one of its kinds."""

    verbs: Annotated[list[Verb], Field(min_length=1, max_length=_MAX_LISTED)]
    kinds: Annotated[list[AccessKind], Field(min_length=1, max_length=_MAX_LISTED)]
    namespaces: Annotated[list[NamespaceOrAll], Field(min_length=1, max_length=_MAX_LISTED)] = field(
        default_factory=lambda: [ANYWHERE]
    )
    """What is in no namespace, such as a host, is only covered by `*`."""
    names: Annotated[list[Name], Field(max_length=_MAX_LISTED)] = field(default_factory=list[str])
    """Only objects of these names; of every name when it is empty."""
    labels: Labels = field(default_factory=dict[str, str])
    """Only objects that have all of these labels, and keep them."""


@spec
class RoleSpec:
    rules: Annotated[list[Rule], Field(max_length=MAX_RULES)] = field(default_factory=list[Rule])


class AccessSubjectKind(StrEnum):
    USER = "user"
    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    GROUP = "group"


@spec
class AccessSubject:
    kind: AccessSubjectKind
    name: SubjectName

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}"


@spec
class RoleBindingSpec:
    """Gives `role` to every subject."""

    role: Name
    subjects: Annotated[list[AccessSubject], Field(min_length=1, max_length=MAX_SUBJECTS)]
    namespaces: Annotated[list[NamespaceOrAll], Field(min_length=1, max_length=_MAX_LISTED)] = field(
        default_factory=lambda: [ANYWHERE]
    )
    """Where the role holds; a rule of the role may narrow it further."""


@spec
class AccessLimit:
    """Takes away from what a credential may do, and gives nothing: whatever it does is one of `verbs`, in one of
    `namespaces`. What is in no namespace is only left where `namespaces` is `*`."""

    verbs: Annotated[list[Verb], Field(min_length=1, max_length=_MAX_LISTED)] = field(
        default_factory=lambda: [Verb.ANY]
    )
    namespaces: Annotated[list[NamespaceOrAll], Field(min_length=1, max_length=_MAX_LISTED)] = field(
        default_factory=lambda: [ANYWHERE]
    )


_VISIBLE = [
    AccessKind.HOST,
    AccessKind.NAMESPACE,
    AccessKind.MICROVM,
    AccessKind.MICROVM_GROUP,
    AccessKind.PLACEMENT_POLICY,
    AccessKind.FAILOVER_POLICY,
    AccessKind.GC_POLICY,
    AccessKind.OPERATION,
    AccessKind.ROLE,
    AccessKind.ROLE_BINDING,
    AccessKind.API_TOKEN,
    AccessKind.CLUSTER,
    AccessKind.COLLECTION,
]
_LOOK = Rule(verbs=[Verb.READ], kinds=_VISIBLE)

ADMIN = "admin"
BUILT_IN: Mapping[str, RoleSpec] = {
    "viewer": RoleSpec(rules=[_LOOK]),
    # No quotas: an operator of one namespace would raise his own. Nor how long garbage is kept: for all alike.
    "operator": RoleSpec(
        rules=[
            _LOOK,
            Rule(
                verbs=[Verb.DECLARE, Verb.DELETE, Verb.ACT, Verb.HOLD, Verb.CONSOLE],
                kinds=[AccessKind.MICROVM],
            ),
            Rule(
                verbs=[Verb.DECLARE, Verb.DELETE],
                kinds=[AccessKind.MICROVM_GROUP, AccessKind.PLACEMENT_POLICY, AccessKind.FAILOVER_POLICY],
            ),
            Rule(verbs=[Verb.ACT, Verb.HOLD, Verb.CONFIRM], kinds=[AccessKind.HOST]),
            Rule(verbs=[Verb.ACT], kinds=[AccessKind.COLLECTION]),
            Rule(verbs=[Verb.DECLARE, Verb.DELETE], kinds=[AccessKind.API_TOKEN]),
        ]
    ),
    "provisioner": RoleSpec(
        rules=[
            Rule(verbs=[Verb.READ], kinds=[AccessKind.HOST, AccessKind.CLUSTER]),
            Rule(verbs=[Verb.DECLARE, Verb.DELETE, Verb.ACT], kinds=[AccessKind.HOST]),
            Rule(verbs=[Verb.READ, Verb.DECLARE, Verb.DELETE], kinds=[AccessKind.JOIN_TOKEN]),
            Rule(verbs=[Verb.READ], kinds=[AccessKind.CERTIFICATE]),
        ]
    ),
    ADMIN: RoleSpec(rules=[Rule(verbs=[Verb.ANY], kinds=[AccessKind.ANY])]),
    "host": RoleSpec(rules=[Rule(verbs=[Verb.ACT], kinds=[AccessKind.SESSION])]),
    "node": RoleSpec(rules=[Rule(verbs=[Verb.READ, Verb.ACT], kinds=[AccessKind.RELAY])]),
}
MEMBER_ROLES = frozenset({"host", "node"})
"""Held by certificates alone; of `host`, each holder has it for its own name."""
