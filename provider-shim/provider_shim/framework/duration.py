"""Durations as Terraform users write them: `90s`, `5m`, `1h30m`."""

from __future__ import annotations

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse_duration_s(text: str) -> float:
    """Seconds. Raises ValueError with a sentence a user can act on."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'"{text}" is not a duration; write it as 90s, 5m or 1h30m')
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if not 0 < seconds <= 7 * 24 * 3600:
        raise ValueError(f'"{text}" is not between 1ms and 168h')
    return seconds


def show_duration(seconds: float) -> str:
    """The other way, for messages: 300 -> `5m`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return "".join(f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if n)
