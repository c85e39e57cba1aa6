"""Every route refuses what it does not know, whoever adds it."""

from __future__ import annotations

import pytest
from fastapi import APIRouter

from controlplane.api.http.routing import StrictRoute, strict_routes


def test_a_router_that_would_take_any_query_is_not_served() -> None:
    router = APIRouter()

    @router.get("/lax")
    async def lax() -> None: ...

    with pytest.raises(TypeError, match="lax"):
        strict_routes(router)


def test_a_strict_router_is_served() -> None:
    router = APIRouter(route_class=StrictRoute)

    @router.get("/strict")
    async def strict() -> None: ...

    strict_routes(router)
