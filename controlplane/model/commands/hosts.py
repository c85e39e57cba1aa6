"""What becomes of hosts and their agents: connected, silent, lost, fenced, back; and what operators say of them."""

from __future__ import annotations

from msgspec import field

from controlplane.model.gc import Leftover
from controlplane.model.resources import Inventory, Observation, Unmanaged
from controlplane.model.types import record


@record
class AgentConnected:
    """A host's agent opened a session at a node; the newest session is the host's only one."""

    host: str
    uid: str
    session: str
    node: str
    inventory: Inventory
    lease_ttl_ms: int = 0
    """The longest lease that this session may be granted, or that the agent still holds from an earlier one."""


@record
class AgentLost:
    """An undeclared host's agent is gone. Ignored if the host has another session by now."""

    host: str
    session: str
    reason: str


@record
class HostSuspected:
    """The leader granted this session nothing for a while."""

    host: str
    session: str
    reason: str


@record
class HostHeard:
    """The leader grants to a suspect host again."""

    host: str
    session: str


@record
class HostDetached:
    """The host's lease has ended, and the leader of `term` grants it no other. Refused in another term."""

    host: str
    session: str | None
    """None of a host that has none: it was lost before there were leases."""
    term: int
    reason: str


@record
class HostFenced:
    """The leader of `term` waited until nothing that may be resurrected can run there. Refused in another term."""

    host: str
    term: int
    reason: str
    since: int | None = None
    """`since` of the detached host that was waited for: one that came back and was detached again is another wait."""


@record
class ConfirmFenced:
    """An operator's word that the host is certainly off, as logs of before `ConfirmOff` hold it: a suspect host was
    fenced by it at once, though the leader might be granting to it again at that moment."""

    host: str
    revision: int | None = None


@record
class HostEvacuated:
    """Nothing is left on the host of what its mode is to clear."""

    host: str


@record
class BeginIncarnation:
    """The leader of `term` granted no lease for so long that every one of a lost history has ended, and what ran under
    it. Refused in another term."""

    incarnation: int
    term: int


@record
class ConfirmOff:
    """An operator's word that the host is certainly off. A suspect one is detached by it, so that nothing more is
    granted, and fenced like any detached host once what may have been granted last has ended (docs/adr/0115)."""

    host: str
    revision: int | None = None


@record
class Destroyed:
    uid: str
    epoch: int


@record
class OverrideBreaker:
    """An operator's word that failover goes on although the breaker is open, for so long from now on."""

    for_s: int
    reason: str


@record
class CancelOverride:
    """An operator takes an override back."""

    of: str
    """What is overridden: `breaker`."""


@record
class Report:
    """What a host's agent saw. Refused when the session is not the host's present one."""

    host: str
    session: str
    observed: list[Observation] = field(default_factory=list[Observation])
    destroyed: list[Destroyed] = field(default_factory=list[Destroyed])
    unmanaged: list[Unmanaged] | None = None
    """The full list, or None for no change."""
    rejoined: bool = False
    """A complete report of this session shows that every order to destroy was carried out."""
    leftovers: list[str] | None = None
    """Words that agents once had for what is left behind. Read for ever, and without a meaning by now."""
    left_behind: list[Leftover] | None = None
    """All that is there of microVMs that are gone, or None for no change."""
