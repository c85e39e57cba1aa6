"""A microVM's folder, `STATE/vms/UID/`, and the two records in it.

`definition.json` is what the host was last told to run; it is written before anything else is made and removed, with
the folder, after everything else is gone, so a crash at any point leaves something to complete. `run.json` is about the
last start of QEMU. Both hold user data and are readable by the owner only. Secrets are in neither:
`sensitive.json` has them, for the seed of the next start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from controlplane.drivers.qemu import command
from controlplane.drivers.qemu.tag import is_part
from controlplane.drivers.qemu.watchdog import MARK
from controlplane.model.types import DECODE_ERRORS
from controlplane.ports import DriverError, VMDefinition

SEED = "seed.iso"
SENSITIVE = "sensitive.json"
DRAFTS = frozenset({".definition.json", ".run.json", f".{SENSITIVE}", SENSITIVE})
"""What a write of a record leaves that was interrupted."""


class Run(msgspec.Struct, frozen=True):
    """The last start."""

    definition: VMDefinition
    """What the process was started from, later changes that took effect live included."""
    boot_id: str
    """Of the host."""
    console_start: int
    accelerator: str
    ready: bool = False
    stop_requested: bool = False
    exit_status: str | None = None
    """`signal 9` or `status 1`, when the agent was the process's parent and alive to see its end."""


_Record = TypeVar("_Record")
_definitions = msgspec.json.Decoder(VMDefinition)
_runs = msgspec.json.Decoder(Run)
_values = msgspec.json.Decoder(dict[str, str])


class Folder:
    """Paths and records of one microVM. Raises DriverError(`StateUnavailable`) when they cannot be used."""

    def __init__(self, vms: Path, uid: str) -> None:
        if not is_part(uid):
            raise DriverError("InvalidUid", f"{uid[:80]!r} cannot name a microVM on this host", retryable=False)
        self.uid = uid
        self.path = vms / uid
        self.console = self.path / command.CONSOLE
        self.events = self.path / command.EVENTS
        self.output = self.path / "qemu.log"
        self.lock = self.path / "run.lock"
        self.seed = self.path / SEED
        self.lease_ended = self.path / MARK
        """There while the watchdog halts the guest, and after it killed it, until the next start."""

    def exists(self) -> bool:
        return self.path.is_dir()

    def definition(self) -> VMDefinition | None:
        data = self._read("definition.json")
        return _decode(_definitions, data, self.path) if data is not None else None

    def run(self) -> Run | None:
        data = self._read("run.json")
        return _decode(_runs, data, self.path) if data is not None else None

    def save_definition(self, definition: VMDefinition) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.path.parent)
        except OSError as error:
            raise DriverError("StateUnavailable", f"cannot make {self.path}: {error.strerror}") from error
        self._save_sensitive(definition.sensitive)
        self.write("definition.json", msgspec.json.encode(definition.public()))

    def sensitive(self) -> Mapping[str, str]:
        """Values of the definition's secrets, for the next seed."""
        data = self._read(SENSITIVE)
        return _decode(_values, data, self.path) if data is not None else {}

    def _save_sensitive(self, values: Mapping[str, str]) -> None:
        if values:
            self.write(SENSITIVE, msgspec.json.encode(values))
        else:
            (self.path / SENSITIVE).unlink(missing_ok=True)

    def save_run(self, run: Run) -> None:
        self.write("run.json", msgspec.json.encode(msgspec.structs.replace(run, definition=run.definition.public())))

    def write(self, name: str, data: bytes) -> None:
        """Replace one file in one step, on stable storage when this returns."""
        temporary = self.path / f".{name}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor with a mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            temporary.rename(self.path / name)
            sync_folder(self.path)
        except OSError as error:
            raise DriverError("StateUnavailable", f"cannot write {self.path / name}: {error.strerror}") from error

    def remove(self, trash: Path) -> None:
        """Make the folder vanish in one step, then delete it; `sweep` finishes what a crash leaves."""
        doomed = trash / self.uid
        try:
            trash.mkdir(mode=0o700, parents=True, exist_ok=True)
            if doomed.exists():
                shutil.rmtree(doomed)
            if self.path.exists():
                self.path.rename(doomed)
                sync_folder(self.path.parent)
                shutil.rmtree(doomed)
        except OSError as error:
            raise DriverError("StateUnavailable", f"cannot remove {self.path}: {error.strerror}") from error

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DriverError("StateUnavailable", f"cannot read {self.path / name}: {error.strerror}") from error


def remove_tree(path: Path) -> None:
    """What vanishes meanwhile is no error. Raises OSError."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


def sweep(trash: Path) -> None:
    """Delete what is in the trash."""
    if trash.is_dir():
        for entry in trash.iterdir():
            shutil.rmtree(entry)


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _decode(decoder: msgspec.json.Decoder[_Record], data: bytes, folder: Path) -> _Record:
    try:
        return decoder.decode(data)
    except DECODE_ERRORS as error:
        raise DriverError("StateUnavailable", f"a record in {folder} is damaged: {error}", retryable=False) from error
