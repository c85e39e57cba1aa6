"""Metrics for Prometheus, from this node's replica as it is: a node that is cut off says so, and is scraped as well."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from controlplane.api.http import metrics
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import With
from controlplane.decide import gc

router = APIRouter(tags=["Cluster"], route_class=StrictRoute)


@router.get("/metrics", response_class=PlainTextResponse)
async def scrape(services: With) -> Response:
    """Garbage collection, hosts and this node's replica, in Prometheus' text format."""
    state = services.reader.state
    made = gc.plan(
        state,
        services.settings.gc_policy,
        now_ms=services.clock.now_ms(),
        limit=services.settings.gc_per_round,
    )
    age_s = services.reader.contact.age_s
    body = metrics.exposition(state, made, services.gc_refused, age_s=age_s)
    return Response(body, media_type=CONTENT_TYPE_LATEST)
