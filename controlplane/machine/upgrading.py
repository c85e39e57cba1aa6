"""The command that raises the cluster's machine version (docs/adr/0176)."""

from __future__ import annotations

from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Applied, Change
from controlplane.machine.steps import Result, stale
from controlplane.model.commands import RaiseMachineVersion, UnknownEntryError
from controlplane.model.commands.versions import MACHINE_VERSION


def raise_machine_version(draft: Draft, command: RaiseMachineVersion) -> Result:
    """Raises UnknownEntryError where this build does not know the version: what follows may be beyond it."""
    if command.version > MACHINE_VERSION:
        raise UnknownEntryError(
            f"the cluster's machine version is {command.version} from here on; this build knows {MACHINE_VERSION}"
        )
    if command.version <= draft.state.machine_version:
        return stale(f"the machine version is {draft.state.machine_version} already")
    draft.raise_machine_version(command.version)
    return Applied(revision=draft.revision, change=Change.CHANGED)
