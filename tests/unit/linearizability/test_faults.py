"""Faults that must keep out of each other's way."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import cast

import pytest
from linearizability.cluster import Cluster
from linearizability.faults import FAULTS, World


@dataclass
class Members:
    """A cluster that does every change at once, and counts the removals."""

    nodes: dict[str, None] = field(default_factory=lambda: dict.fromkeys(("n1", "n2", "n3")))
    removals: list[str] = field(default_factory=list[str])

    def admin(self, _through: str) -> Members:
        return self

    async def remove_member(self, name: str, *, timeout_s: float) -> None:
        assert timeout_s > 0
        self.removals.append(name)


@pytest.mark.parametrize("name", ["replace-member", "lost-disk"])
async def test_a_node_that_was_just_removed_is_not_removed_again(name: str) -> None:
    world = World(cluster=cast(Cluster, None), doors={}, chance=random.Random(1), removed=["n3"])
    async with FAULTS[name].make(world) as said:
        assert said == "nothing, because n3 was removed a moment ago"
    assert (world.wanted, world.removed) == ([], ["n3"])


@pytest.mark.parametrize("name", ["replace-member", "lost-disk"])
async def test_a_node_that_the_end_of_an_earlier_change_removed_is_not_removed_again(name: str) -> None:
    members = Members()
    world = World(cluster=cast(Cluster, members), doors={}, chance=random.Random(1), wanted=[("remove", "n3")])
    async with FAULTS[name].make(world) as said:
        assert said == "nothing, because n3 was removed a moment ago"
    assert (world.wanted, world.removed, members.removals) == ([], ["n3"], ["n3"])
