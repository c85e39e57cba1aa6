"""Frames on a byte stream: a 4-byte big-endian length and a msgpack body, used between peers and on the unix socket.

The decoder refuses a length over its limit before it buffers anything of that frame, so a stranger costs bounded
memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

_encoder = msgspec.msgpack.Encoder()
LENGTH_BYTES = 4
# msgspec lets invalid UTF-8 through as UnicodeDecodeError, a ValueError, and deep nesting as RecursionError.
DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding bytes of unknown origin may raise."""


class FrameTooLargeError(ValueError):
    """A frame announces more bytes than allowed."""


def encode_frame(message: msgspec.Struct) -> bytearray:
    """`message` as one frame."""
    frame = bytearray(LENGTH_BYTES)
    _encoder.encode_into(message, frame, LENGTH_BYTES)
    frame[:LENGTH_BYTES] = (len(frame) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")
    return frame


class FrameDecoder:
    """Splits received bytes into frame bodies of at most `max_bytes` each."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Bodies completed by `data`. Raises FrameTooLargeError; the stream is then unusable."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= LENGTH_BYTES:
                length = int.from_bytes(buffer[at : at + LENGTH_BYTES], "big")
                if length > self.max_bytes:
                    raise FrameTooLargeError(f"a frame of {length} bytes, at most {self.max_bytes} are allowed")
                end = at + LENGTH_BYTES + length
                if len(buffer) < end:
                    break
                body = bytes(memoryview(buffer)[at + LENGTH_BYTES : end])
                at = end
                yield body
        finally:
            del buffer[:at]
