"""A few thousand almost right inputs for each decoder, the same ones every time. `make fuzz` goes on from there."""

from __future__ import annotations

from random import Random

import pytest
from fuzz.mutate import mutated
from fuzz.targets import TARGETS

INPUTS = 1500


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_raises_nothing_but_what_it_promises(name: str) -> None:
    target = TARGETS[name]
    for sample in target.samples:
        target.try_one(sample)
    random = Random(name)
    for _ in range(INPUTS):
        data = mutated(random, target.samples)
        try:
            target.try_one(data)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} for {data[:300]!r}") from error
