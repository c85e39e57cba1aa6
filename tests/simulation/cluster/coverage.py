"""What seeds must have reached to prove anything, as classes of the counters that a run keeps."""

from __future__ import annotations

from collections import Counter

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
    "lifecycle of hosts": (
        "host pending -> ready",
        "host ready -> suspect",
        "host suspect -> ready",
        "host suspect -> detached",
        "host detached -> fenced",
        "host detached -> rejoining",
        "host fenced -> rejoining",
        "host rejoining -> ready",
        "host rejoining -> detached",
        "host ready -> detached",
    ),
    "lifecycle of microVMs": (
        "microvm new -> pending",
        "microvm pending -> placed",
        "microvm placed -> active",
        "microvm active -> pending",
        "microvm placed -> pending",
        "microvm active -> moving",
        "microvm moving -> pending",
        "microvm active -> deleting",
        "microvm placed -> deleting",
    ),
}


def never_reached(seen: Counter[str]) -> list[str]:
    return [f"{name}: {what}" for name, whats in CLASSES.items() for what in whats if not seen[what]]


def report(seen: Counter[str]) -> str:
    """A line per class."""
    return "\n".join(
        f"  {name}: " + ", ".join(f"{seen[what]:,} {what}" for what in whats) for name, whats in CLASSES.items()
    )
