"""What a restarted agent must still say of the leases it was granted: one small file per boot of the host.

A leader that shortens the time to live waits for the longest lease that may be outstanding, so an agent tells it in its
Hello; an agent that forgot could make a leader wait too short. The file is replaced in one step before the lease
counts, without fsync: it has to outlive the agent's process and not the host, whose guests a loss of power ends too.
For the same reason its name carries the boot id: a file of another boot is nobody's lease and is not even read, so that
what a crash of the host left half-written can mislead nobody.

A file of this boot that cannot be read counts as the longest lease there is, from now on: that only makes a leader wait
longer, for an hour at most, and an operator who knows better can say so (`confirm-fenced`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from controlplane.model.types import DECODE_ERRORS

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LONGEST_S = 3600.0
"""No lease is taken that lives longer."""
_PREFIX = "lease-"
_MAX_BYTES = 4096


class Held(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lease that ends last of all that were granted since the host's boot."""

    ends_s: float
    """CLOCK_BOOTTIME."""
    ttl_s: float


NOTHING = Held(ends_s=0.0, ttl_s=0.0)
_decoder = msgspec.json.Decoder(Held)


class HeldFile:
    def __init__(self, directory: Path, boot_id: str) -> None:
        self._path = directory / f"{_PREFIX}{boot_id}.json"
        self._draft = directory / f".{_PREFIX}{boot_id}.json"

    def read(self, now_s: float) -> Held:
        """Never raises: what cannot be known counts as the most that it can be."""
        try:
            with self._path.open("rb") as file:
                held = _decoder.decode(file.read(_MAX_BYTES))
        except FileNotFoundError:
            return NOTHING
        except (OSError, *DECODE_ERRORS) as error:
            problem = str(error)
        else:
            if 0 <= held.ends_s < now_s + LONGEST_S and 0 <= held.ttl_s <= LONGEST_S:
                return held
            problem = f"{held} is not possible"
        log.error("what was granted before cannot be read; an hour is assumed", file=self._path, problem=problem)
        return Held(ends_s=now_s + LONGEST_S, ttl_s=LONGEST_S)

    def write(self, held: Held) -> None:
        """Raises OSError."""
        with self._draft.open("wb", buffering=0) as file:
            file.write(msgspec.json.encode(held))
        self._draft.replace(self._path)

    def remove_others(self) -> None:
        """Files of earlier boots. Raises OSError."""
        for path in self._path.parent.glob(f"{_PREFIX}*.json"):
            if path != self._path:
                path.unlink(missing_ok=True)
