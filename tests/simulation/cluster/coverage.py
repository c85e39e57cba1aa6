"""What seeds must have reached to prove anything, as classes of the counters that a run keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from controlplane.machine.lifecycle import AVAILABILITY, HOST, MICROVM


def _moves(what: str, table: Mapping[tuple[StrEnum | None, StrEnum], StrEnum | None]) -> tuple[str, ...]:
    """Every pair of phases that the table connects."""
    return tuple(
        {f"{what} {old or 'new'} -> {new or 'gone'}": None for (old, _), new in table.items() if old is not new}
    )


CLASSES: dict[str, tuple[str, ...]] = {
    "nodes": (
        "node killed",
        "node lost power",
        "all nodes down",
        "raft process killed",
        "front process killed",
        "stopped: raft",
        "stopped: front",
        "stopped: both",
        "leader deposed unaware",
        "restored",
    ),
    "disks": (
        "disk: dies",
        "disk: fails",
        "disk: slow",
        "died in append",
        "died in sync",
        "failed in append",
        "failed in sync",
        "stopped by its disk",
        "unsynced bytes at a power loss",
    ),
    "network": (
        "partition symmetric",
        "partition asymmetric",
        "leader cut off",
        "host cut off",
        "host cut off in one direction",
        "bad weather",
        "message lost",
        "message duplicated",
        "message held",
    ),
    "hosts": (
        "host lost power",
        "agent killed",
        "agent away",
        "agent frozen",
        "watchdog killed",
        "watchdog frozen",
        "watchdog replaced",
        "driver failed",
        "guest crashed",
        "started by hand",
        "wall clock jumped",
    ),
    "guests": (
        "guest started",
        "guest halted at the end of a lease",
        "guest killed",
        "guest destroyed",
    ),
    "people": (
        "user work",
        "write acknowledged",
        "write refused",
        "write unknown",
        "operator confirmed",
        "lease settings changed",
        "host to be emptied: drain",
        "host to be emptied: maintenance",
        "host emptied",
        "host deleted",
        "host acted on again and again",
        "host lost with a microVM just placed",
        "host emptied with a microVM just placed",
        "microVM deleted that was just placed",
        "microVM without a place",
    ),
    "groups": (
        "group declared",
        "group rolled",
        "group scaled",
        "group changed in place",
        "group complete",
        "group deleted",
        "command step_group",
    ),
    "members": (
        "member replaced",
        "member added",
        "member added as a learner",
        "member promoted",
        "member removed",
        "leadership transferred",
        "leadership not transferred",
    ),
    "commands": (
        "command place",
        "command report",
        "command delete",
        "command act",
        "command act_on_host",
        "command evict",
        "command host_evacuated",
        "command host_suspected",
        "command host_heard",
        "command host_detached",
        "command host_fenced",
        "command resurrect",
        "command begin_incarnation",
        "command refused",
    ),
    "lifecycle of hosts": _moves("host", HOST),
    "what hosts are for": _moves("availability", AVAILABILITY),
    "lifecycle of microVMs": _moves("microvm", MICROVM),
}


def never_reached(seen: Counter[str]) -> list[str]:
    return [f"{name}: {what}" for name, whats in CLASSES.items() for what in whats if not seen[what]]


def report(seen: Counter[str]) -> str:
    """A line per class."""
    return "\n".join(
        f"  {name}: " + ", ".join(f"{seen[what]:,} {what}" for what in whats) for name, whats in CLASSES.items()
    )
