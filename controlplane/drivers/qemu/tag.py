"""The mark that a QEMU process of ours carries in `-name`, by which it is found again in /proc.

`flintlock/INSTANCE/CLUSTER/UID/EPOCH/NAMESPACE/NAME`: the instance names one agent's state folder, so several agents
on one machine never touch each other's processes; the epoch makes a stale copy recognizable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "flintlock"
_PART = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PARTS = 7
_EPOCH_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Tag:
    instance: str
    cluster_id: str
    uid: str
    epoch: int
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join((PREFIX, self.instance, self.cluster_id, self.uid, str(self.epoch), self.namespace, self.name))


def mark_of(tag: Tag) -> str:
    """The mark of what has less room than a process's name, without the names for people."""
    return "/".join((PREFIX, tag.instance, tag.cluster_id, tag.uid, str(tag.epoch)))


def parse_mark(text: str) -> Tag | None:
    return parse(f"{text}//")


def is_part(text: str) -> bool:
    """Whether `text` can stand in a tag, and as the name of a folder."""
    return _PART.fullmatch(text) is not None and not text.startswith(".")


def instance_of(text: str) -> str | None:
    """The instance that a marked process says it belongs to, even when the rest of the mark is not ours."""
    parts = text.split("/")
    return parts[1] if len(parts) >= 2 and parts[0] == PREFIX else None


def parse(text: str) -> Tag | None:
    parts = text.split("/")
    # Any process on the host may call itself so, and Python refuses to read a number of thousands of digits.
    if len(parts) != _PARTS or parts[0] != PREFIX or not parts[4].isdecimal() or len(parts[4]) > _EPOCH_DIGITS:
        return None
    _, instance, cluster_id, uid, epoch, namespace, name = parts
    return Tag(instance, cluster_id, uid, int(epoch), namespace, name)
