"""Times as people read them: RFC 3339 in UTC, with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, overload

from pydantic import WithJsonSchema

Timestamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
_TO_SECONDS = len("2026-11-22T20:08:18")
_LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: a host's clock may say anything, and is only shown."""


@overload
def iso(at_ms: int) -> str: ...
@overload
def iso(at_ms: int | None) -> str | None: ...
def iso(at_ms: int | None) -> str | None:
    """Milliseconds since the Unix epoch, such as `2026-11-22T20:08:18.123Z`."""
    if at_ms is None:
        return None
    seconds, milliseconds = divmod(min(max(at_ms, 0), _LAST_MS), 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1024)
def _second(at_s: int) -> str:
    # What is written at one time is read at one time: most answers ask for a second that was asked for already.
    return datetime.fromtimestamp(at_s, UTC).isoformat()[:_TO_SECONDS]
