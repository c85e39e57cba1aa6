"""What schedules must have reached to prove anything, as classes of the counters that a run keeps."""

from __future__ import annotations

from collections import Counter

CLASSES: dict[str, tuple[str, ...]] = {
    "elections": ("leader elected", "vote granted", "vote refused", "pre-vote granted", "election forced"),
    "transfers": ("transfer", "transfer failed"),
    "membership": (
        "learner asked for",
        "promotion asked for",
        "removal asked for",
        "change committed",
        "change lost",
        "change refused",
        "removed member stopped",
        "connection refused",
    ),
    "conflicts": ("append refused", "entries truncated", "proposal discarded"),
    "snapshots": ("snapshot taken", "snapshot chunk sent", "snapshot of several chunks", "snapshot installed"),
    "clients": ("proposal acknowledged", "proposal refused", "proposal unknown", "read answered", "read refused"),
    "leadership": ("leadership confirmed", "leadership refused"),
    "messages": ("message lost", "message duplicated", "message held", "connection reset"),
    "partitions": (
        "partition symmetric",
        "partition asymmetric",
        "partition bridge",
        "partition isolated",
        "partition link",
    ),
    "crashes": (
        "killed",
        "power lost",
        "unsynced bytes at a power loss",
        "removed file back after a power loss",
        "all restarted at once",
    ),
    "crashes inside the disk": ("died in append", "died in sync", "died in replace", "died while starting"),
    "broken disks": (
        "failed in append",
        "failed in sync",
        "failed in replace",
        "stopped by its disk",
        "failed while starting",
        "disk lost",
        "empty disk refused",
    ),
    "time": ("paused", "stall excused", "slow disk", "clock jumped", "clock rate changed"),
}


def never_reached(seen: Counter[str]) -> list[str]:
    return [f"{name}: {what}" for name, whats in CLASSES.items() for what in whats if not seen[what]]


def report(seen: Counter[str]) -> str:
    """A line per class."""
    return "\n".join(
        f"  {name}: " + ", ".join(f"{seen[what]:,} {what}" for what in whats) for name, whats in CLASSES.items()
    )
