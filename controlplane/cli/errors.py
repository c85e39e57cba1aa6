"""Errors as flintctl shows them: what is wrong, with which field, and what to do about it. Never a traceback.

Exit codes: 0 done, 1 an error, 2 differences were found (`drift --exit-code`) or the command line was wrong (1 for
`drift`, whose 2 means drift alone), 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

ERROR = 1
DIFFERENCES = 2
INTERRUPTED = 130


class CliError(Exception):
    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def lines(self) -> list[str]:
        return [self.message, *([f"hint: {self.hint}"] if self.hint else [])]


class ProblemError(CliError):
    """The API refused: an RFC 9457 problem."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(body.get("code", "unknown"))
        self.body = body
        super().__init__(str(body.get("detail") or body.get("title") or f"HTTP {status}"), hint=body.get("hint"))

    def lines(self) -> list[str]:
        return [f"{self.message} [{self.status} {self.code}]", *problem_details(self.body)]


def problem_details(body: Mapping[str, Any]) -> list[str]:
    """The fields that a problem is about, and its hint, one per line."""
    lines = [f"  {error.get('pointer') or '/'}: {error.get('message', '')}" for error in body.get("errors") or ()]
    return [*lines, *([f"hint: {body['hint']}"] if body.get("hint") else [])]


def show(error: CliError) -> None:
    first, *rest = error.lines()
    print(f"flintctl: {first}", *rest, sep="\n", file=sys.stderr)
