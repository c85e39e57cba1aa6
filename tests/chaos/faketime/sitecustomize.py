"""For agents under libfaketime, which answers EINVAL to a short sleep whose end has passed: that sleep is simply over.

Python sleeps until a moment of the monotonic clock; libfaketime 0.9.10 makes of it how long that is from now, and a
negative time of a moment that has just gone by. subprocess.run with a timeout fails of it every other time.
"""

from __future__ import annotations

import errno
import time

_sleep = time.sleep


def _sleep_or_be_over(seconds: float) -> None:
    try:
        _sleep(seconds)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


time.sleep = _sleep_or_be_over
