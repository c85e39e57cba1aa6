"""Noticing that TLS files were replaced, so that servers use the new ones for whoever connects from then on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from controlplane.identity.files import TlsFiles

PERIOD_S = 1.0
Stamp = tuple[tuple[int, int, int] | None, ...]
_log = structlog.get_logger(__name__)


def stamp(files: TlsFiles) -> Stamp:
    """Another one whenever one of the files was replaced."""
    return tuple(_stamp_of(path) for path in (files.ca, files.certificate, files.key))


async def follow(files: TlsFiles, changed: Callable[[], None], *, period_s: float = PERIOD_S) -> None:
    """Call `changed` after every replacement, until cancelled. While it raises OSError it is called again: what is in
    use stays in use, and of several files some may be new and others not yet.
    """
    known = stamp(files)
    while True:
        await asyncio.sleep(period_s)
        if (found := stamp(files)) == known:
            continue
        try:
            changed()
        except (OSError, ssl.SSLError) as error:
            _log.warning("tls.not_reloaded", certificate=str(files.certificate), reason=str(error))
        else:
            known = found
            _log.info("tls.reloaded", certificate=str(files.certificate))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)
