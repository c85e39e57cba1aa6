"""The machine version: what a command needs, how it rises, and what an older build makes of it."""

from __future__ import annotations

import pytest
from support.builders import declare_group, declare_host, declare_microvm, declare_namespace
from support.driven import DrivenMachine
from support.invariants import check_snapshot
from support.snapshots import dump, load

from controlplane.machine import codec, upgrading
from controlplane.machine.outcome import Change, Code
from controlplane.model.commands import (
    Adopt,
    Batch,
    Command,
    DeclareHost,
    DeclareMicroVM,
    DeclareNamespace,
    RaiseMachineVersion,
    UnknownEntryError,
    seal,
    versions,
)
from controlplane.model.commands.versions import MACHINE_VERSION, AddedField, version_needed
from controlplane.model.spec import HostMode

PLAIN, SECRET = declare_microvm(), declare_microvm(sensitive_metadata={"user-data": "hmac-sha256:" + "0" * 64})


@pytest.fixture
def next_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2, since which there are namespaces, modes of hosts and sensitive metadata."""
    for module in (codec, upgrading):
        monkeypatch.setattr(module, "MACHINE_VERSION", 2)
    monkeypatch.setitem(versions.SINCE, DeclareNamespace, 2)
    monkeypatch.setitem(versions.ADDED, DeclareHost, (AddedField("", "mode", "active", since=2),))
    monkeypatch.setitem(versions.ADDED, DeclareMicroVM, (AddedField("", "sensitive_metadata", {}, since=2),))


def _batch(*commands: Command) -> Batch:
    return Batch(commands=[seal(each, id=str(at), at=0, actor="a") for at, each in enumerate(commands)])


def _adopt(declaration: DeclareMicroVM) -> Adopt:
    return Adopt(host="h1", key="k", epoch=1, generation=1, declaration=declaration)


@pytest.mark.usefixtures("next_build")
@pytest.mark.parametrize(
    ("command", "needed"),
    [
        (RaiseMachineVersion(version=2), 1),
        (declare_namespace(), 2),
        (declare_host(), 1),
        (declare_host(mode=HostMode.MAINTENANCE), 2),
        (PLAIN, 1),
        (SECRET, 2),
        (_adopt(PLAIN), 1),
        (_adopt(SECRET), 2),
        (declare_group(), 1),
        (declare_group(template=SECRET.spec), 2),
        (_batch(PLAIN, PLAIN), 1),
        (_batch(PLAIN, SECRET), 2),
        (_batch(), 1),
    ],
)
def test_a_command_needs_what_it_says(command: Command, needed: int) -> None:
    assert version_needed(command) == needed


def test_no_version_is_beyond_this_build() -> None:
    assert all(1 < since <= MACHINE_VERSION for since in versions.SINCE.values())
    assert all(1 <= each.since <= MACHINE_VERSION for added in versions.ADDED.values() for each in added)


@pytest.mark.usefixtures("next_build")
def test_it_rises_once_and_lasts() -> None:
    machine = DrivenMachine()
    machine.refuse(RaiseMachineVersion(version=1), Code.STALE)
    done = machine.accept(RaiseMachineVersion(version=2))
    assert (done.change, machine.state.machine_version) == (Change.CHANGED, 2)
    machine.refuse(RaiseMachineVersion(version=2), Code.STALE)
    check_snapshot(machine.state)


def test_an_older_build_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = DrivenMachine()
    with pytest.raises(UnknownEntryError, match=f"is {MACHINE_VERSION + 1} from here on; this build knows"):
        machine.do(RaiseMachineVersion(version=MACHINE_VERSION + 1))
    with monkeypatch.context() as newer:
        newer.setattr(upgrading, "MACHINE_VERSION", MACHINE_VERSION + 1)
        machine.accept(RaiseMachineVersion(version=MACHINE_VERSION + 1))
    with pytest.raises(ValueError, match="use the build that the cluster's other nodes have"):
        load(dump(machine.state))
