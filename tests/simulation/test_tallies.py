"""What a tally counts for: code that does the same, however it is written, on whatever machine."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from simulation.ledger import keep, recall
from simulation.tallies import Tally, load, meaning

WRITTEN = '''"""A module."""
from dataclasses import dataclass

LIMIT_S = 3.0
"""Until somebody gives up."""

@dataclass
class Patience:
    """How long."""

    left_s: float = LIMIT_S
    """Of it."""

    def spend(self, seconds: float) -> None:
        """Some of it."""
        self.left_s -= seconds
'''


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("A module.", "Another description."),
        ("Some of it.", "Some"),
        ("LIMIT_S = 3.0\n", "LIMIT_S = 3.0  # as measured\n"),
        ("seconds: float) -> None:", "seconds: float,\n    ) -> None:"),
        ('    """How long."""\n\n', ""),
    ],
)
def test_words_and_layout_do_not_count(there: str, instead: str) -> None:
    assert meaning(WRITTEN.replace(there, instead)) == meaning(WRITTEN)


@pytest.mark.parametrize(
    ("there", "instead"),
    [("3.0", "3.5"), ("-=", "+="), ("left_s: float", "left_s: int"), ("@dataclass\n", ""), ("def spend", "def use")],
)
def test_what_is_done_does(there: str, instead: str) -> None:
    assert meaning(WRITTEN.replace(there, instead)) != meaning(WRITTEN)


def line(first: int, seeds: int, code: str = "now") -> str:
    tally = Tally(seeds=seeds, steps=10 * seeds, seen=Counter({"crash": seeds}), violations=[{"seed": first}])
    return json.dumps({"code": code, "first": first, **vars(tally)}) + "\n"


def test_a_ledger_brings_tallies_to_another_machine(tmp_path: Path) -> None:
    here, there, ledger = tmp_path / "here", tmp_path / "there", tmp_path / "ledger"
    here.write_text(line(1, 1) + line(0, 1) + line(0, 1) + line(2, 1, "before") + line(7, 1))
    assert keep(here, ledger, "now") == 3
    assert len(ledger.read_text().splitlines()) == 2, "a line for 0 and 1, another for 7"

    there.write_text(line(3, 1))
    recall(ledger, there, "now")
    recall(ledger, there, "now")
    total, done = load(there, "now", 0, 10, block=1)
    assert done == {0, 1, 3, 7}
    assert (total.seeds, total.steps, total.seen["crash"], len(total.violations)) == (4, 40, 4, 4)

    assert keep(there, ledger, "now") == 4
    assert keep(there, ledger, "after") == 0
    assert ledger.read_text(), "who has nothing takes nothing away"
    recall(ledger, there, "after")
    assert load(there, "after", 0, 10, block=1) == (Tally(), set())


def test_seeds_that_two_lines_tell_of_count_once(tmp_path: Path) -> None:
    file, ledger = tmp_path / "file", tmp_path / "ledger"
    file.write_text(line(1, 1) + line(0, 3) + line(2, 1))
    assert load(file, "now", 0, 10, block=1)[0].seeds == 2
    assert keep(file, ledger, "now") == 3
