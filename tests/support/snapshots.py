"""A state through a snapshot and back, without a disk."""

from __future__ import annotations

import msgspec

from controlplane.machine.codec import Loader, View
from controlplane.machine.state import State


def chunks(state: State) -> list[bytes]:
    return [data for part in View(state).parts() for data in part.encode()]


def dump(state: State) -> bytes:
    """Header and chunks in one piece; equal states give equal bytes."""
    return msgspec.msgpack.encode((View(state).header(), chunks(state)))


def load(data: bytes) -> State:
    """Raises ValueError."""
    header, parts = msgspec.msgpack.decode(data, type=tuple[bytes, list[bytes]])
    loader = Loader(header)
    for chunk in parts:
        loader.add(chunk)
    return loader.finish()
