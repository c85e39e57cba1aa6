"""What a long command says while it works: on a terminal one line that moves, elsewhere one line per fact."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

_TICK_S = 0.2


class Progress:
    """Writes to stderr, so that results on stdout stay clean."""

    def __init__(self) -> None:
        self._moving = sys.stderr.isatty()
        self._shown = ""
        self._last = 0.0

    def say(self, text: str) -> None:
        """A fact that stays."""
        self._clear()
        print(text, file=sys.stderr, flush=True)

    def moving(self, text: str) -> None:
        """What is being waited for; shown on a terminal only."""
        now = time.monotonic()
        if not self._moving or (text == self._shown and now - self._last < _TICK_S):
            return
        self._clear()
        self._shown, self._last = text[:100], now
        sys.stderr.write(self._shown)
        sys.stderr.flush()

    @contextmanager
    def step(self, text: str) -> Generator[None]:
        """Say how long a piece of work took, once it is done."""
        started = time.monotonic()
        self.moving(f"{text} ...")
        yield
        self.say(f"{text}: {time.monotonic() - started:.1f} s")

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            self._shown = ""
