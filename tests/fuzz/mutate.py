"""Bytes that almost are what a decoder expects, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_DEEP = 2000
_STRANGE = (b"\x00", b"\xff", b"\xc1", b"\xed\xa0\x80", b"\x91" * _DEEP, b"[" * _DEEP, b"9" * 5000, b'"', b"\n", b"~/")
_MOST = 4
"""Changes of one sample."""


def mutated(random: Random, samples: Sequence[bytes]) -> bytes:
    """One of the samples with a few changes: bytes set, cut, doubled, put in, or exchanged with another sample's."""
    data = bytearray(random.choice(samples))
    for _ in range(random.randint(1, _MOST)):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice((1, 1, 2, 4, 16, 256)))
        match random.randrange(6):
            case 0:
                data[at:end] = random.randbytes(end - at)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end]
            case 3:
                data[at:end] = random.choice(_STRANGE)
            case 4 if at < len(data):
                data[at] ^= 1 << random.randrange(8)
            case _:
                other = random.choice(samples)
                begin = random.randrange(len(other) + 1)
                data[at:end] = other[begin : begin + random.randrange(64)]
    return bytes(data)
