"""The machine version: which commands, with which fields, every node of a cluster can read.

A build that meets a command it does not know stops, and one that meets a field it does not know would forget it. So a
command that needs a later version than the cluster's is not proposed at all. The cluster's version is in the state and
rises by a committed command, once every member runs a build that knows the next one (docs/adr/0176).

What is added to the log gets a version here: raise `MACHINE_VERSION` once per release, and say `since`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from controlplane.model.commands.declaring import (
    Declaration,
    DeclareGCPolicy,
    DeclareHost,
    DeclareMicroVM,
    DeclareMicroVMGroup,
)
from controlplane.model.commands.envelope import Batch, Command, open_payload
from controlplane.model.commands.keeping import Adopt
from controlplane.model.spec import Evacuation, GCPolicySpec

MACHINE_VERSION = 1
"""The newest that this build knows."""

SINCE: dict[type[Command], int] = {}
"""Commands that came after version 1, and with which version."""


class AddedField(NamedTuple):
    """A field that a declaration got later."""

    part: str
    """Of the spec; empty: the spec itself."""
    name: str
    unset: object
    """Its default, in builtin types."""
    since: int = 1


ADDED: dict[type[Command], tuple[AddedField, ...]] = {
    DeclareMicroVM: (
        AddedField("recovery", "on_detach", None),
        AddedField("recovery", "allow_data_loss", False),
        AddedField("recovery", "policy", None),
        AddedField("", "sensitive_metadata", {}),
    ),
    DeclareHost: (
        AddedField("", "mode", "active"),
        AddedField("", "evacuation", msgspec.to_builtins(Evacuation())),
    ),
    DeclareGCPolicy: (
        AddedField("", "lost_tombstone_after_s", None),
        AddedField("", "leftover_after_s", None),
        AddedField("", "quarantined_volumes_after_s", GCPolicySpec().quarantined_volumes_after_s),
        AddedField("", "audit_records_after_s", None),
    ),
}
"""By declaration. Such fields are no part of a fingerprint while they are unset: those of requests of before them stay
what they were, in snapshots and for whoever repeats such a request. Every field that is added to a declaration needs
this.
"""


def version_needed(command: Command) -> int:
    """The lowest machine version whose builds read `command` whole."""
    since = SINCE.get(type(command), 1)
    match command:
        case Batch():
            return max([since, *(version_needed(open_payload(part)) for part in command.commands)])
        case Adopt():
            return max(since, version_needed(command.declaration))
        case DeclareMicroVMGroup():
            return max(
                since, _of_fields(command.spec, DeclareMicroVMGroup), _of_fields(command.spec.template, DeclareMicroVM)
            )
        case _ if isinstance(command, Declaration):
            return max(since, _of_fields(command.spec, type(command)))
        case _:
            return since


def _of_fields(spec: object, declaration: type[Declaration]) -> int:
    """Of those that `spec` sets and its declaration got later."""
    later = [field for field in ADDED.get(declaration, ()) if field.since > 1]
    plain: dict[str, Any] = msgspec.to_builtins(spec) if later else {}
    return max(
        (since for part, name, unset, since in later if (plain[part] if part else plain)[name] != unset), default=1
    )
