"""Structured logs: one JSON object per line on standard error, with the process and its node or host in every line."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO, cast

import msgspec
import structlog

_STANDARD_ERROR = 2
_encoder = msgspec.json.Encoder(enc_hook=repr)
"""For nearly every line; `json` takes ten times as long."""


class _Lossy:
    """Standard error, whose reader may be gone or whose disk may be full: then lines are lost, and the work goes on.

    It keeps nothing back: what a buffer could not write would fail again at the process's end, and spoil its exit code.
    """

    def write(self, text: str) -> None:
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        with suppress(OSError):
            while left:
                left = left[os.write(_STANDARD_ERROR, left) :]

    def flush(self) -> None:
        """Nothing is kept back."""


def _as_json(event: Mapping[str, object], **_options: object) -> str:
    """In ASCII, so that no text of others can play with a terminal."""
    with suppress(UnicodeEncodeError, TypeError):
        text = _encoder.encode(event)
        if text.isascii():
            return text.decode()
    return json.dumps(event, default=repr)


def configure(level: str, **bound: str) -> None:
    """Set up structlog and the standard library's logging for this process; `bound` goes into every line."""

    def with_bound(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**bound, **event}

    shared: list[structlog.typing.Processor] = [
        with_bound,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[structlog.typing.Processor] = [
        # Local variables hold specs, metadata and tokens: they never reach a log.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(_as_json),
    ]
    stream = cast("TextIO", _Lossy())
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Straight to the stream: every request writes a line, and the way through `logging` costs as much as its work.
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("uvicorn.access", "qemu.qmp", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
