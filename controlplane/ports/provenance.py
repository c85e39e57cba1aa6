"""Where the request that is being served came from, so that a proposer can stamp it on what it leads to.

It travels as a context variable, as trace contexts do: whoever handles a request proposes in its task or in one that
this one started, and what the product decides by itself runs in tasks that never had a request.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from controlplane.model.audit import Origin


@dataclass(slots=True)
class Provenance:
    """One request, while it is served."""

    origin: Origin
    proposed: bool = False
    """It led to a command, and so to an audit record of that."""


SERVED: ContextVar[Provenance | None] = ContextVar("served", default=None)


def stamp() -> Origin | None:
    """Of the request that leads to a command now; None: no request does."""
    served = SERVED.get()
    if served is None:
        return None
    served.proposed = True
    return served.origin
