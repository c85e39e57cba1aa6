"""Log lines: what they hold, and that losing them stops nobody. In a process of its own, since logging is global."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import IO

import pytest

_PROGRAM = """
import logging, sys
import structlog
from controlplane import logs
logs.configure("info", process="front", node="n1")
log = structlog.get_logger("x")
{body}
print("went on")
"""


def run(body: str, stderr: IO[str] | int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _PROGRAM.format(body=body)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60, check=True)


def test_lines_of_both_kinds_are_json_with_what_was_bound() -> None:
    lines = run(
        """
log.debug("unseen")
log.info("request", status=200, strange={1})
log.info("of another", node="n2")
logging.getLogger("library").warning("%s of it", 3)
try:
    secret = "hunter2"
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""
    ).stderr.splitlines()
    mine, other, library, failed = (json.loads(line) for line in lines)
    assert {
        "event": "request",
        "level": "info",
        "status": 200,
        "process": "front",
        "node": "n1",
    }.items() <= mine.items()
    assert {"event": "3 of it", "level": "warning", "node": "n1"}.items() <= library.items()
    assert "timestamp" in mine
    assert {"event": "of another", "node": "n2", "process": "front"}.items() <= other.items()
    assert failed["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert "hunter2" not in lines[3]


def test_lines_of_other_threads_hold_what_was_bound_too() -> None:
    lines = run(
        """
import threading
thread = threading.Thread(target=log.info, args=("elsewhere",))
thread.start()
thread.join()
"""
    ).stderr.splitlines()
    (line,) = map(json.loads, lines)
    assert {"event": "elsewhere", "process": "front", "node": "n1"}.items() <= line.items()


def test_a_line_is_ascii_whatever_it_holds() -> None:
    lines = run(
        r"""
log.info("odd", path="/caf\u00e9\udc80", csi="\x9b31m", thing=object, count=float("inf"))
log.info("plain", path="/a\x1b[31m")
"""
    ).stderr.splitlines()
    odd, plain = (json.loads(line) for line in lines)
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert (odd["path"], odd["csi"], odd["thing"]) == ("/caf\u00e9\udc80", "\x9b31m", repr(object))
    assert plain["path"] == "/a\x1b[31m"


@pytest.mark.parametrize("buffered", [False, True])
def test_a_full_disk_loses_lines_and_nothing_else(buffered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code, too, is the program's own: a parent reads in it whether to start a child again."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        body = "for number in range(1000):\n    log.info('line', number=number, text='x' * 100)"
        body += "\n    logging.getLogger('library').warning('line %d', number)"
        assert run(body, stderr=full).stdout == "went on\n"
