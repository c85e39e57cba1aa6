"""What the checker's clients take from an answer: a revision that is none of the value's would be asked for in vain."""

from __future__ import annotations

import pytest
from linearizability.doors import note
from linearizability.history import History, Kind

from controlplane.machine.outcome import Applied, Change


@pytest.mark.parametrize(
    ("change", "value_revision"),
    [(Change.CREATED, 91), (Change.CHANGED, 91), (Change.UNCHANGED, None), (Change.DELETED, None)],
)
def test_only_what_a_write_changed_has_its_revision(change: Change, value_revision: int | None) -> None:
    operation = History().begin(12, "n3", "keep-1", Kind.WRITE, value=115)
    note(operation, Applied(revision=91, change=change))
    assert (operation.revision, operation.value_revision) == (91, value_revision)
