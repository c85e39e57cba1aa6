"""How tests are dealt out to the workers of a run (docs/adr/0116).

`--dist loadgroup` hands every test to whichever worker is free, except that a group stays on one worker and runs one
after another. Two kinds of tests are a group: those that name one, and those that use a fixture which lives as long as
their module, so that it is made once and the tests that build on each other meet.

Groups are handed out first, the largest before the others, and then single tests in their order. Those of whole
clusters come before those of parts: what is short fills the gaps in the end.
"""

from __future__ import annotations

import pytest
from _pytest.nodeid import NodeId

_SHARED = ("class", "module", "package")


def arrange(items: list[pytest.Item], *, by_group: bool) -> None:
    """Put `items` in the order in which they are dealt out; `by_group`: on a worker of `--dist loadgroup`."""
    items.sort(key=lambda item: _file(item).count("/"))
    if by_group:
        for item in items:
            if (group := _group(item)) is not None:
                # xdist reads the group from here, and 3.8 writes it to where pytest 9.2 does not read it.
                item._id = NodeId.parse(f"{item.nodeid}@{group}")


def _group(item: pytest.Item) -> str | None:
    named = item.get_closest_marker("xdist_group")
    if named is not None:
        return str(named.args[0])
    return _file(item) if _shares_a_fixture(item) else None


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _shares_a_fixture(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    definitions = item._fixtureinfo.name2fixturedefs.values()
    return any(each[-1].scope in _SHARED for each in definitions)
