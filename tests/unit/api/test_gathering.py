"""What is written in one turn of the event loop leaves in one piece, and nothing is forgotten at the end."""

from __future__ import annotations

import asyncio

from controlplane.api.http.protocol import Gathering


class Below(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes | None] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.seen.append(bytes(data))

    def close(self) -> None:
        self.seen.append(None)

    def is_closing(self) -> bool:
        return None in self.seen


async def test_one_turn_is_one_write() -> None:
    below = Below()
    transport = Gathering(below)
    transport.write(b"head ")
    transport.write(b"body")
    assert below.seen == []
    await asyncio.sleep(0)
    assert below.seen == [b"head body"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert below.seen == [b"head body", b"next"]


async def test_a_close_comes_after_what_was_written() -> None:
    below = Below()
    transport = Gathering(below)
    transport.write(b"last words")
    transport.close()
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert below.seen == [b"last words", None]
