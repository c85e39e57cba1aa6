"""Looking again and again until it is so: with growing pauses, to a deadline, and no longer than Terraform runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from provider_shim.client import CancelledError

_PAUSES_S = (0.1, 2.0)


def turns(deadline: float, cancel: threading.Event) -> Iterator[None]:
    """A turn at once, and then one after each pause, the last one at the deadline (a `time.monotonic()` instant).

    Raises CancelledError when Terraform is interrupted.
    """
    pause, longest = _PAUSES_S
    while True:
        now = time.monotonic()
        yield
        if now >= deadline:
            return
        if cancel.wait(min(pause, max(deadline - time.monotonic(), 0))):
            raise CancelledError("Terraform was interrupted")
        pause = min(pause * 2, longest)
