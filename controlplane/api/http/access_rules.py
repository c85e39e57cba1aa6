"""What each route needs: its verb and its kind, all in one table.

A route that is not here fails the making of the application, and with it the build. What the table says is in the
OpenAPI document too (`x-flintlock-access`), from which the table of tests is generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from controlplane.model.access import AccessKind, Verb


class About(Enum):
    """What of the kind a route is about."""

    OPEN = "open"
    """Nothing: it needs no credential."""
    CALLER = "caller"
    """The caller alone: whoever is known may ask."""
    WHOLE = "whole"
    """All of it, in every namespace."""
    ONE = "one"
    """The object that the path names."""
    SOME = "some"
    """Whatever the caller may see: the handler leaves out the rest."""
    BODY = "body"
    """What the body names: the handler asks for each."""


@dataclass(frozen=True, slots=True)
class Needs:
    about: About
    verb: Verb = Verb.READ
    kind: AccessKind = AccessKind.ANY


OPEN = Needs(About.OPEN)
CALLER = Needs(About.CALLER)
BODY = Needs(About.BODY)


def _one(verb: Verb, kind: AccessKind) -> Needs:
    return Needs(About.ONE, verb, kind)


def _some(kind: AccessKind) -> Needs:
    return Needs(About.SOME, Verb.READ, kind)


def _whole(verb: Verb, kind: AccessKind) -> Needs:
    return Needs(About.WHOLE, verb, kind)


def _declared(path: str, kind: AccessKind) -> dict[str, Needs]:
    """The four routes of a kind that is declared for the whole cluster."""
    return {
        f"GET {path}": _some(kind),
        f"GET {path}/{{name}}": _one(Verb.READ, kind),
        f"PUT {path}/{{name}}": _one(Verb.DECLARE, kind),
        f"DELETE {path}/{{name}}": _one(Verb.DELETE, kind),
    }


_GROUP = "/namespaces/{namespace}/microvmgroups/{name}"
_VM = "/namespaces/{namespace}/microvms/{name}"

ROUTES: dict[str, Needs] = {
    **_declared("/namespaces", AccessKind.NAMESPACE),
    **_declared("/hosts", AccessKind.HOST),
    **_declared("/placementpolicies", AccessKind.PLACEMENT_POLICY),
    **_declared("/failoverpolicies", AccessKind.FAILOVER_POLICY),
    **_declared("/gcpolicies", AccessKind.GC_POLICY),
    **_declared("/roles", AccessKind.ROLE),
    **_declared("/rolebindings", AccessKind.ROLE_BINDING),
    "GET /api-tokens": _some(AccessKind.API_TOKEN),
    "POST /api-tokens": BODY,
    "GET /api-tokens/{name}": _one(Verb.READ, AccessKind.API_TOKEN),
    "POST /api-tokens/{name}/actions/rotate": _one(Verb.DECLARE, AccessKind.API_TOKEN),
    "DELETE /api-tokens/{name}": _one(Verb.DELETE, AccessKind.API_TOKEN),
    "GET /hosts/{name}/evacuation": _one(Verb.READ, AccessKind.HOST),
    "GET /hosts/{name}/plan": _one(Verb.READ, AccessKind.HOST),
    "POST /hosts/{name}/actions/cordon": _one(Verb.ACT, AccessKind.HOST),
    "POST /hosts/{name}/actions/uncordon": _one(Verb.ACT, AccessKind.HOST),
    "POST /hosts/{name}/actions/drain": _one(Verb.ACT, AccessKind.HOST),
    "POST /hosts/{name}/actions/maintenance": _one(Verb.ACT, AccessKind.HOST),
    "POST /hosts/{name}/actions/adopt": _one(Verb.ACT, AccessKind.HOST),
    "POST /hosts/{name}/actions/purge": _one(Verb.ACT, AccessKind.HOST),
    "POST /hosts/{name}/actions/confirm-fenced": _one(Verb.CONFIRM, AccessKind.HOST),
    f"GET {_VM}": _one(Verb.READ, AccessKind.MICROVM),
    f"PUT {_VM}": _one(Verb.DECLARE, AccessKind.MICROVM),
    f"DELETE {_VM}": _one(Verb.DELETE, AccessKind.MICROVM),
    f"GET {_VM}/why": _one(Verb.READ, AccessKind.MICROVM),
    f"GET {_VM}/console": _one(Verb.CONSOLE, AccessKind.MICROVM),
    f"POST {_VM}/actions/{{action}}": _one(Verb.ACT, AccessKind.MICROVM),
    f"GET {_GROUP}": _one(Verb.READ, AccessKind.MICROVM_GROUP),
    f"PUT {_GROUP}": _one(Verb.DECLARE, AccessKind.MICROVM_GROUP),
    f"DELETE {_GROUP}": _one(Verb.DELETE, AccessKind.MICROVM_GROUP),
    "GET /microvmgroups": _some(AccessKind.MICROVM_GROUP),
    "GET /namespaces/{namespace}/microvmgroups": _some(AccessKind.MICROVM_GROUP),
    "GET /microvms": _some(AccessKind.MICROVM),
    "GET /namespaces/{namespace}/microvms": _some(AccessKind.MICROVM),
    "GET /microvms/by-uid/{uid}": _some(AccessKind.MICROVM),
    "GET /operations": _some(AccessKind.OPERATION),
    "GET /operations/{id}": _some(AccessKind.OPERATION),
    "POST /apply": BODY,
    "GET /watch": CALLER,
    "GET /events": CALLER,
    "GET /drift": CALLER,
    "GET /failover": _whole(Verb.READ, AccessKind.CLUSTER),
    "PUT /failover/override": _whole(Verb.CONFIRM, AccessKind.HOST),
    "DELETE /failover/override": _whole(Verb.CONFIRM, AccessKind.HOST),
    "GET /gc/plan": _whole(Verb.READ, AccessKind.COLLECTION),
    "GET /gc/status": _whole(Verb.READ, AccessKind.COLLECTION),
    "GET /gc/holds": CALLER,
    "POST /gc/run": _whole(Verb.ACT, AccessKind.COLLECTION),
    "POST /gc/hold": BODY,
    "POST /gc/release": BODY,
    "GET /cluster": _whole(Verb.READ, AccessKind.CLUSTER),
    "GET /metrics": _whole(Verb.READ, AccessKind.CLUSTER),
    "GET /schema/microvm": CALLER,
    "GET /raft": _whole(Verb.READ, AccessKind.CLUSTER),
    "GET /raft/members": _whole(Verb.READ, AccessKind.CLUSTER),
    "POST /raft/members": _whole(Verb.ACT, AccessKind.CLUSTER),
    "POST /raft/members/{node}/actions/promote": _whole(Verb.ACT, AccessKind.CLUSTER),
    "DELETE /raft/members/{node}": _whole(Verb.ACT, AccessKind.CLUSTER),
    "POST /raft/actions/transfer-leadership": _whole(Verb.ACT, AccessKind.CLUSTER),
    "POST /snapshots": _whole(Verb.READ, AccessKind.SNAPSHOT),
    "GET /snapshots/{id}/manifest": _whole(Verb.READ, AccessKind.SNAPSHOT),
    "POST /snapshots/{id}/chunks": _whole(Verb.READ, AccessKind.SNAPSHOT),
    "DELETE /snapshots/{id}": _whole(Verb.READ, AccessKind.SNAPSHOT),
    "GET /audit": _whole(Verb.READ, AccessKind.AUDIT),
    "GET /auth/whoami": CALLER,
    "GET /auth/decision": CALLER,
    "GET /jointokens": _whole(Verb.READ, AccessKind.JOIN_TOKEN),
    "POST /jointokens": _whole(Verb.DECLARE, AccessKind.JOIN_TOKEN),
    "DELETE /jointokens/{id}": _whole(Verb.DELETE, AccessKind.JOIN_TOKEN),
    "GET /authority": _whole(Verb.READ, AccessKind.CERTIFICATE),
    "POST /authority/actions/revoke": _whole(Verb.ACT, AccessKind.CERTIFICATE),
    "POST /authority/actions/rotate": _whole(Verb.ACT, AccessKind.CLUSTER),
    "POST /authority/actions/abort": _whole(Verb.ACT, AccessKind.CLUSTER),
    "POST /authority/actions/retire": _whole(Verb.ACT, AccessKind.CLUSTER),
    "GET /secrets": _whole(Verb.READ, AccessKind.CLUSTER),
    "POST /secrets/actions/rotate": _whole(Verb.ACT, AccessKind.CLUSTER),
    "GET /join/authority": OPEN,
    "POST /join": OPEN,
    "GET /providers/registry.terraform.io/microscaler/flintlock/{document}": OPEN,
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
}
"""By method and path, without the prefix of the API."""


def needs_of(method: str, path: str) -> Needs:
    """Raises TypeError for a route that nothing was decided of."""
    try:
        return ROUTES[f"{method} {path}"]
    except KeyError:
        raise TypeError(f"{method} {path} has no rule: say in {__name__} who may ask it") from None
