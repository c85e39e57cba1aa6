"""Faults that must keep out of each other's way."""

from __future__ import annotations

import random
from typing import cast

import pytest
from linearizability.cluster import Cluster
from linearizability.faults import FAULTS, World


@pytest.mark.parametrize("name", ["replace-member", "lost-disk"])
async def test_a_node_that_was_just_removed_is_not_removed_again(name: str) -> None:
    world = World(cluster=cast(Cluster, None), doors={}, chance=random.Random(1), removed=["n3"])
    async with FAULTS[name].make(world) as said:
        assert said == "nothing, because n3 was removed a moment ago"
    assert (world.wanted, world.removed) == ([], ["n3"])
