"""What a tally counts for: code that does the same, however it is written."""

from __future__ import annotations

import pytest
from simulation.tallies import meaning

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
