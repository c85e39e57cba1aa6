"""A round of a reconciler, which is level-based: whatever keeps one from being done, the next sees the same again."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import structlog

from controlplane.ports import LogError

_log = structlog.get_logger(__name__)


@contextmanager
def survived(actor: str) -> Generator[None]:
    """Around a round of `actor`: that it could not be committed, or broke, is said in the log and ends there.

    A round that cannot be decided must not take the whole front down with it, again and again.
    """
    try:
        yield
    except LogError as error:
        _log.warning(f"{actor}.not_committed", error=str(error))
    except Exception:
        _log.exception(f"{actor}.round_broke")
