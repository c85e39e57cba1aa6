"""The configurations in one member's log, in order: the newest counts, and a truncation brings back the one before.

Pure bookkeeping. What lies below the newest snapshot can never be rolled back, so one configuration at or below it is
all that has to be remembered there; the others are entries of the log and are found again by reading it.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.consensus import engine
from controlplane.consensus.configuration import FOUNDING_INDEX, Configuration, decode
from controlplane.consensus.errors import SafetyViolationError

MEMBERSHIP_KIND = bytes([engine.MEMBERSHIP])
"""What a membership entry begins with."""


class Configurations:
    """`base` stands at `base_index`; None on a node that joins and has not heard of any configuration."""

    def __init__(self, base: Configuration | None, base_index: int = FOUNDING_INDEX) -> None:
        self._entries: list[tuple[int, Configuration]] = [] if base is None else [(base_index, base)]

    @property
    def current(self) -> Configuration | None:
        return self._entries[-1][1] if self._entries else None

    @property
    def index(self) -> int:
        """Where the current one stands; 0 when there is none."""
        return self._entries[-1][0] if self._entries else 0

    def at(self, index: int) -> tuple[int, Configuration | None]:
        """The configuration that counts for a log that ends at `index`, and where it stands."""
        for at, configuration in reversed(self._entries):
            if at <= index:
                return at, configuration
        return 0, None

    def add(self, index: int, configuration: Configuration) -> None:
        assert index > self.index, (index, self.index)
        self._entries.append((index, configuration))

    def truncate_from(self, index: int) -> bool:
        """The entries at `index` and above are gone. Whether another configuration counts now."""
        kept = [entry for entry in self._entries if entry[0] < index]
        changed = len(kept) < len(self._entries)
        self._entries = kept
        return changed

    def forget_below(self, index: int) -> None:
        """A snapshot covers everything up to `index`."""
        covering, _ = self.at(index)
        self._entries = [entry for entry in self._entries if entry[0] >= covering]


def read_configurations(
    founding: Configuration | None, snapshot: tuple[bytes, int], entries: Iterable[tuple[bytes, int, int]]
) -> Configurations:
    """Find them again: the `founding` one, that of the newest snapshot (encoded, and where it stands; empty when it
    has none), then those among the log's `entries` (command, index, term). Raises SafetyViolationError.
    """
    encoded, index = snapshot
    known = Configurations(decode_entry(index, encoded), index) if encoded else Configurations(founding)
    for command, at, _ in entries:
        if at > known.index and command[:1] == MEMBERSHIP_KIND:
            known.add(at, decode_entry(at, command[1:]))
    return known


def decode_entry(index: int, data: bytes) -> Configuration:
    """The configuration in entry `index`. Raises SafetyViolationError."""
    try:
        return decode(data)
    except ValueError as error:
        raise SafetyViolationError(f"entry {index} of kind {engine.MEMBERSHIP} (membership): {error}") from None
