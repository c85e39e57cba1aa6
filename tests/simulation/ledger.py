"""Tallies that outlast the machine that made them: a file under version control, of what the present code did.

A line stands for all seeds that follow one another, so that a thousand of them take the place of a few.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulation.tallies import Tally


def recall(ledger: Path, file: Path, code: str) -> None:
    """Put what `ledger` knows of `code` into `file`, before what was tallied there, unless it is there already."""
    known = file.read_text().splitlines() if file.exists() else []
    kept = [line for line in _lines(ledger) if json.loads(line)["code"] == code and line not in known]
    if kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in (*kept, *known)))


def keep(file: Path, ledger: Path, code: str) -> int:
    """Write what `file` has of `code` to `ledger`, in place of what stood there, if it has any; the number of seeds."""
    lines = [json.dumps({"code": code, "first": first, **vars(tally)}) for first, tally in _runs(file, code)]
    if lines:
        ledger.write_text("".join(f"{line}\n" for line in lines))
    return sum(json.loads(line)["seeds"] for line in lines)


def _runs(file: Path, code: str) -> Iterator[tuple[int, Tally]]:
    """The seeds that follow one another, each once, as the first of them and the tally over all."""
    first, total = 0, Tally()
    for record in sorted(_records(file, code), key=lambda each: (each["first"], -each["seeds"])):
        start = record.pop("first")
        if start < first + total.seeds:
            continue
        if start > first + total.seeds:
            if total.seeds:
                yield first, total
            first, total = start, Tally()
        total.add(Tally(**record))
    if total.seeds:
        yield first, total


def _records(file: Path, code: str) -> Iterator[dict[str, Any]]:
    for line in _lines(file):
        record = json.loads(line)
        if record.pop("code") == code:
            yield {**record, "seen": Counter[str](record["seen"])}


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
