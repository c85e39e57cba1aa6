"""Reports: applied in order, they bring a node to exactly what the agent knows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.agent_values import assignment, instance, record

from controlplane.agent.journal import RecordPhase
from controlplane.agent.observe import HostView, ReportPart, observe, report_parts, says_the_same
from controlplane.model.resources import Failure, Observation, ObservedPower, Unmanaged
from controlplane.ports import DriverInfo

INFO = DriverInfo(name="simulated", version="1", simulated=True, accelerator=None)
observations = st.builds(
    Observation,
    uid=st.sampled_from("abcdefg"),
    host=st.just("h1"),
    epoch=st.integers(1, 2),
    at=st.integers(0, 5),
    power=st.sampled_from(ObservedPower),
)
views = st.builds(
    lambda observed, strangers, destroyed: HostView(
        revision=1,
        observed={seen.uid: seen for seen in observed},
        unmanaged=tuple(Unmanaged(native_id=each, driver="d") for each in sorted(strangers)),
        destroyed=destroyed,
    ),
    st.lists(observations, max_size=7),
    st.sets(st.sampled_from("xyz")),
    st.dictionaries(st.sampled_from("hij"), st.integers(1, 2), max_size=3),
)


class Node:
    """Takes reports as the protocol says: complete ones replace, others add."""

    def __init__(self) -> None:
        self.observed: dict[str, Observation] = {}
        self.destroyed: dict[str, int] = {}
        self.unmanaged: list[Unmanaged] = []

    def take(self, part: ReportPart) -> None:
        if part.complete:
            self.observed, self.destroyed, self.unmanaged = {}, {}, list(part.unmanaged)
        self.observed.update({seen.uid: seen for seen in part.observed})
        self.destroyed.update({gone.uid: gone.epoch for gone in part.destroyed})


@given(st.lists(views, min_size=1, max_size=4), st.integers(1, 3))
def test_a_node_that_takes_every_part_knows_the_view(sequence: list[HostView], size: int) -> None:
    node, sent = Node(), None
    for view in sequence:
        parts = report_parts(view, sent, max_items=size)
        for part in parts:
            assert len(part.observed) <= size
            assert len(part.destroyed) <= size
            node.take(part)
        sent = view
        for uid, seen in view.observed.items():
            assert says_the_same(node.observed[uid], seen)
        assert node.destroyed.items() >= view.destroyed.items()
        assert node.unmanaged == list(view.unmanaged)


@given(views)
def test_nothing_new_is_not_told(view: HostView) -> None:
    assert report_parts(view, view) == []


def test_a_failure_is_told_again_with_newer_assignments() -> None:
    broken = Observation(
        uid="a", host="h1", epoch=1, at=1, power=ObservedPower.ABSENT, failure=Failure(code="X", message="x")
    )
    before, after = HostView(1, {"a": broken}), HostView(2, {"a": broken})
    assert report_parts(before, before) == []
    (part,) = report_parts(after, before)
    assert (part.complete, part.revision, part.observed) == (False, 2, [broken])


def test_when_it_was_seen_alone_is_no_news() -> None:
    one = Observation(uid="a", host="h1", epoch=1, at=1, power=ObservedPower.RUNNING)
    later = Observation(uid="a", host="h1", epoch=1, at=2, power=ObservedPower.RUNNING)
    assert report_parts(HostView(1, {"a": later}), HostView(1, {"a": one})) == []


def test_nothing_is_said_of_what_was_never_begun() -> None:
    assert observe("h1", assignment(), None, None, None, INFO, at_ms=1) is None


def test_an_unfinished_create_has_no_generation() -> None:
    seen = observe("h1", assignment(), record(phase=RecordPhase.CREATING), instance(), None, INFO, at_ms=1)
    assert seen is not None
    assert seen.generation is None
    assert seen.power is ObservedPower.RUNNING


def test_a_failure_is_told_even_if_nothing_is_there() -> None:
    failure = Failure(code="ImageNotFound", message="no image", permanent=True)
    seen = observe("h1", assignment(), None, None, failure, INFO, at_ms=1)
    assert seen is not None
    assert (seen.power, seen.failure) == (ObservedPower.ABSENT, failure)


def test_what_vanished_is_absent_with_what_had_been_put_into_effect() -> None:
    seen = observe("h1", assignment(), record(), None, None, INFO, at_ms=1)
    assert seen is not None
    assert (seen.power, seen.generation) == (ObservedPower.ABSENT, 1)


def test_long_texts_are_cut() -> None:
    seen = observe("h1", assignment(), record(), instance(cause="x" * 9000), None, INFO, at_ms=1)
    assert seen is not None
    assert seen.cause is not None
    assert len(seen.cause) == 1024
