"""What each node believes of the cluster, side by side, and where they contradict each other. Pure.

Nodes are asked at about the same time and not at the same instant, so a contradiction may be a change that is just
under way: it is pointed out, and whoever looks again knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from controlplane.api.http import cluster_shapes
from controlplane.machine.state import State
from controlplane.ports import NodeView

Views = Mapping[str, NodeView | str]
"""By node, or why it could not be asked."""


def shape(view: NodeView) -> cluster_shapes.BeliefShape:
    contact = view.contact
    return cluster_shapes.BeliefShape(
        role=contact.role,
        leader=contact.leader,
        term=contact.term,
        since_s=round(contact.since_s, 1),
        age_s=round(contact.age_s, 1),
        hears=list(contact.hears),
        misses=list(contact.misses),
        revision=view.revision,
    )


def disagreements(views: Views) -> list[str]:
    """In words for an operator."""
    known = {node: view for node, view in sorted(views.items()) if isinstance(view, NodeView)}
    return [*_about_the_leader(known), *_one_way_only(known)]


def _about_the_leader(known: Mapping[str, NodeView]) -> Iterator[str]:
    followers: dict[str, list[str]] = {}
    for node, view in known.items():
        if view.contact.leader is not None:
            followers.setdefault(view.contact.leader, []).append(node)
    if len(followers) > 1:
        said = (
            f"{_names(nodes)} say {leader} (term {known[nodes[0]].contact.term})" for leader, nodes in followers.items()
        )
        yield f"nodes disagree on who leads: {'; '.join(said)}"
    for node, view in known.items():
        contact = view.contact
        if contact.leader is None and followers:
            heard = _names(contact.hears) if contact.hears else "nobody"
            yield (
                f"{node} has had no leader for {contact.since_s:.0f} s and hears {heard}, while"
                f" {_names(sorted(each for nodes in followers.values() for each in nodes))} go on with"
                f" {_names(sorted(followers))}"
            )


def _one_way_only(known: Mapping[str, NodeView]) -> Iterator[str]:
    for one, other in combinations(known, 2):
        forth, back = other in known[one].contact.hears, one in known[other].contact.hears
        if forth is not back and (other in known[one].contact.misses or one in known[other].contact.misses):
            deaf, heard = (one, other) if back else (other, one)
            yield f"{deaf} does not hear {heard}, which hears {deaf}"


def _names(nodes: tuple[str, ...] | list[str]) -> str:
    return ", ".join(nodes)


def restore(state: State, incarnation: int, views: Views) -> cluster_shapes.RestoreShape | None:
    """What is still waited for after a restore, or a recovery, to the log's `incarnation`; None when it is over."""
    begun = incarnation <= state.incarnation
    awaited = list(state.begun.awaited) if begun and state.begun is not None else []
    if begun and not awaited:
        return None
    waits = [view.waits_s for view in views.values() if isinstance(view, NodeView) and view.waits_s is not None]
    waits_s = round(min(waits), 1) if waits and not begun else None
    return cluster_shapes.RestoreShape(
        incarnation=max(incarnation, state.incarnation),
        begun=begun,
        waits_s=waits_s,
        awaited=awaited,
        message=_waiting_for(awaited) if begun else _counting(waits_s),
    )


def _counting(waits_s: float | None) -> str:
    most = f", {waits_s:.0f} s at most" if waits_s is not None else "; its leader cannot be asked for how long"
    return (
        "the cluster was restored: it waits until every lease of the lost history has ended, and grants, places and"
        f" restarts nothing before{most}"
    )


def _waiting_for(awaited: list[str]) -> str:
    return (
        f"the cluster was restored: nothing is placed before {_names(awaited)} told what is there, or"
        " `flintctl host confirm-fenced` says that they are off"
    )
