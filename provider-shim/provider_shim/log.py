"""Log lines as Terraform reads them from a plugin's stderr: one JSON object a line with `@level`, `@message`."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from typing import Literal

Level = Literal["trace", "debug", "info", "warn", "error"]

_lock = threading.Lock()


def log(level: Level, message: str, **fields: str | int | float | bool | None) -> None:
    """Write one line. Never give it secrets: TF_LOG writes it to files."""
    line = {
        "@level": level,
        "@message": message,
        "@module": "flintlock",
        "@timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **fields,
    }
    text = json.dumps(line, default=str) + "\n"
    with _lock:
        sys.stderr.write(text)
        sys.stderr.flush()
