"""How much of a thing an agent may send; more is refused by naming the field. Pure."""

from __future__ import annotations

MAX_TEXT = 4096
MAX_NAME = 256
MAX_AMOUNT = 2**40 - 1
"""The machine refuses more."""


class WireError(ValueError):
    """`field: what is wrong with it`."""


def text(name: str, value: str, limit: int, *, required: bool = False) -> str:
    if required and not value:
        raise WireError(f"{name}: missing")
    if len(value) > limit:
        raise WireError(f"{name}: {len(value)} characters; at most {limit}")
    return value


def number(name: str, value: int, *, least: int = 0, most: int = MAX_AMOUNT) -> int:
    if not least <= value <= most:
        raise WireError(f"{name}: {value} is not between {least} and {most}")
    return value
