"""Drift of everything: what is not as it should be, class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from controlplane.api.http import params, reads, shapes, views
from controlplane.api.http.access import Asker, Asking
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.decide.drift import SILENT, Drift, DriftClass, classify, unmanaged
from controlplane.machine.state import State
from controlplane.model.types import Kind

router = APIRouter(tags=["Drift"], route_class=StrictRoute)


@router.get("/drift", response_model=shapes.DriftReport)
async def drift(
    asker: Asking,
    state: reads.Snapshot,
    namespace: params.NamespaceFilter = None,
    kind: Annotated[Literal[Kind.MICROVM, Kind.HOST], Query(description="What to look at.")] = Kind.MICROVM,
    class_: Annotated[
        list[DriftClass], Query(alias="class", description="Only items of these classes; the summary counts all.")
    ] = [],  # noqa: B006
) -> Response:
    """Intent beside observation, object by object."""
    summary: Counter[DriftClass] = Counter(dict.fromkeys(DriftClass, 0))
    items: list[shapes.DriftItem] = []
    for item in _microvms(state) if kind is Kind.MICROVM else _hosts(state):
        if namespace is not None and item.namespace != namespace:
            continue
        if not _seen(asker, state, item):
            continue
        summary[item.class_] += 1
        if not class_ or item.class_ in class_:
            items.append(item)
    return respond(shapes.DriftReport(revision=state.revision, summary=dict(summary), items=items), state)


def _seen(asker: Asker, state: State, item: shapes.DriftItem) -> bool:
    """What nobody declared is seen by whoever sees the host where it was found."""
    vm = state.microvms.get(item.uid or "")
    if vm is not None:
        return asker.sees(vm.meta)
    host = state.hosts[item.host or ""]
    return asker.sees(host.meta)


def _microvms(state: State) -> Iterator[shapes.DriftItem]:
    for key in sorted(state.names):
        vm = state.microvms[state.names[key]]
        placed = vm.placement.host if vm.placement is not None else None
        yield _item(classify(state, vm), Kind.MICROVM, vm.meta.namespace, vm.meta.name, vm.meta.uid, placed)
    for name in sorted(state.hosts):
        host = state.hosts[name]
        for found in host.unmanaged:
            yield _item(unmanaged(host, found), Kind.MICROVM, found.namespace, found.name, found.uid, name)


def _hosts(state: State) -> Iterator[shapes.DriftItem]:
    for name in sorted(state.hosts):
        host = state.hosts[name]
        if host.declared:
            lost = host.phase in SILENT
            reckoned = Drift(klass=DriftClass.UNREACHABLE if lost else DriftClass.IN_SYNC)
            yield _item(reckoned, Kind.HOST, None, name, host.meta.uid, name)


def _item(
    found: Drift,
    kind: Literal[Kind.MICROVM, Kind.HOST],
    namespace: str | None,
    name: str | None,
    uid: str | None,
    host: str | None,
) -> shapes.DriftItem:
    return shapes.DriftItem(
        kind=kind,
        namespace=namespace,
        name=name,
        uid=uid,
        host=host,
        class_=found.klass,
        fields=views.drift_fields(found.fields),
    )
