"""Many seeds over processes, with tallies that add up across runs: one line of a file per block of seeds.

Each line names the code that it was made with: what that code does, not how it is written, so comments, docstrings and
formatting may change and hours of a core still count.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_OURS = ("controlplane", "tests")


@dataclass
class Tally:
    """What a number of seeds did, all of them by the same code."""

    seeds: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    core_s: float = 0.0
    """Seconds of a core that they took."""
    seen: Counter[str] = field(default_factory=Counter[str])
    violations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.virtual_s += other.virtual_s
        self.core_s += other.core_s
        self.seen.update(other.seen)
        self.violations.extend(other.violations)


@dataclass(frozen=True)
class Series:
    """Seeds that are run in blocks of `block` by `run(first, count)`; `code` names what they are run with."""

    file: Path
    code: str
    block: int
    run: Callable[[int, int], Tally]

    def go(self, first: int, count: int, jobs: int) -> Iterator[tuple[int, Tally]]:
        """Run the blocks of `count` seeds from `first` that the file does not have yet, append them to it, and yield
        (the seeds done so far, the tally over all of them). What a block raises ends it, and no other one is begun."""
        total, done = load(self.file, self.code, first, count, block=self.block)
        missing = [start for start in range(first, first + count, self.block) if start not in done]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        yield total.seeds, total
        with ProcessPoolExecutor(jobs) as pool, self.file.open("a") as out:
            running = {pool.submit(self.run, at, min(self.block, first + count - at)): at for at in missing}
            for finished in as_completed(running):
                try:
                    tally = finished.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                line = {"code": self.code, "first": running[finished], **vars(tally)}
                out.write(json.dumps(line) + "\n")
                out.flush()
                total.add(tally)
                yield total.seeds, total


def load(file: Path, code: str, first: int, count: int, *, block: int) -> tuple[Tally, set[int]]:
    """The tally so far within the range, and the first seeds of its blocks. A line may be of several blocks."""
    total, done = Tally(), set[int]()
    for line in file.read_text().splitlines() if file.exists() else ():
        record = json.loads(line)
        start, seeds = record.pop("first"), record["seeds"]
        blocks = range(start, start + seeds, block)
        whole = seeds % block == 0 or start + seeds == first + count
        inside = first <= start and start + seeds <= first + count and (start - first) % block == 0
        if record.pop("code") == code and inside and whole and done.isdisjoint(blocks):
            done.update(blocks)
            record["seen"] = Counter[str](record["seen"])
            total.add(Tally(**record))
    return total, done


def fingerprint(folders: Iterable[str]) -> str:
    """Names the code below `folders` of the repository, so that tallies of another version are never added to it."""
    return _digest(path for folder in folders for path in sorted((_ROOT / folder).rglob("*.py")))


def fingerprint_of(module: str) -> str:
    """Names the code of the repository that importing `module` loads, as a fresh interpreter has it: what else the
    caller imported does not count, nor does what the module has no use for."""
    program = (
        f"import sys, {module}; print(*(getattr(each, '__file__', '') for each in sys.modules.values()), sep='\\n')"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    ours = {Path(line) for line in loaded.splitlines() if line.startswith(tuple(f"{_ROOT / each}/" for each in _OURS))}
    return _digest(sorted(ours))


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(_ROOT)).encode() + meaning(path.read_text()).encode())
    return digest.hexdigest()[:12]


def meaning(source: str) -> str:
    """A text that is the same for two modules that differ in comments, docstrings and layout alone."""
    return ast.dump(_Unsaid().visit(ast.parse(source)))


class _Unsaid(ast.NodeTransformer):
    """Takes out strings that stand by themselves: of modules, classes and functions, and below the names they tell
    about."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        stands_alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if stands_alone else node
