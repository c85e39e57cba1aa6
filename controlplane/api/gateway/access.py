"""What each gRPC method of the gateway needs: its verb and its kind, all in one table.

Callers are the members that their certificates name, with the built-in role of their kind; a host has it for its own
name alone, so that its session is about what is assigned to it and nothing else. A method that is not here cannot be
called, and fails the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from controlplane.api.gateway.peer import caller
from controlplane.api.gateway.revoking import withdrawn
from controlplane.decide import access
from controlplane.decide.access import Question
from controlplane.identity.names import IdentityError, require
from controlplane.machine.state import State
from controlplane.model.access import AccessKind, Verb
from controlplane.ports import Clock, StateReader

SESSION = "AgentGateway/Session"
RENEW = "AgentGateway/Renew"
METHODS: Mapping[str, tuple[Verb, AccessKind]] = {
    SESSION: (Verb.ACT, AccessKind.SESSION),
    RENEW: (Verb.ACT, AccessKind.SESSION),
    "NodeRelay/Presence": (Verb.READ, AccessKind.RELAY),
    "NodeRelay/Ask": (Verb.ACT, AccessKind.RELAY),
    "NodeRelay/Grant": (Verb.ACT, AccessKind.RELAY),
    "NodeRelay/View": (Verb.READ, AccessKind.RELAY),
}
"""By service and method, without the package."""

_NO_BINDINGS = State(cluster_id="")
"""No binding names a member: what its certificate gives is all that it has."""


class Context(Protocol):
    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


class Doorkeeper:
    """Decides who may call what at one node's gateway."""

    def __init__(self, cluster_id: str, reader: StateReader, clock: Clock) -> None:
        """`reader`: its state says which certificates count no more."""
        self._cluster_id = cluster_id
        self._reader = reader
        self._clock = clock

    def refused(self, context: Context, method: str, name: str | None = None) -> str | None:
        """Why the caller may not call `method` about the host `name`, or at all when it is None; None if it may."""
        try:
            shown = caller(context.auth_context())
            party = shown.party
            require(party, self._cluster_id, party.kind)
        except IdentityError as error:
            return str(error)
        if (reason := withdrawn(self._reader.state, shown)) is not None:
            return reason
        if shown.expires_at_s < self._clock.now_ms() / 1000:
            return f"the certificate of {party} has expired since this connection was made; connect again"
        verb, kind = METHODS[method]
        question = Question(verb=verb, kind=kind, name=name)
        granted = access.grants(_NO_BINDINGS, access.of_member(party.kind, party.name))
        if granted.covers(question) is not None or (name is None and granted.any_of(verb, kind)):
            return None
        needs = granted.decide(question).would_allow
        return f"the certificate belongs to {party}, which may not {question}: it needs {needs}"
