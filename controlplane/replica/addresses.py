"""Where the other nodes' servers are, as the log's configuration has it and else as this node's settings have it.

The configuration says who the nodes are. What it does not know of them (the founding members' API and gateway) comes
from the settings; while there is no configuration yet, the settings say everything. `Announcer` puts this node's own
addresses into the configuration, so that nodes which were added later find it without anybody's settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from controlplane.ports import LogAdmin, LogError, LogStatus, Member

ANNOUNCE_PERIOD_S = 5.0
ANNOUNCE_TIMEOUT_S = 5.0
MAX_PERIOD_S = 300.0

_log = structlog.get_logger(__name__)

Status = Callable[[], LogStatus | None]


class AddressBook:
    """`api` and `gateway` are this node's settings: HOST:PORT by node, itself included. `status` as last seen."""

    def __init__(self, status: Status, *, api: Mapping[str, str], gateway: Mapping[str, str]) -> None:
        self._status = status
        self._api = api
        self._gateway = gateway

    def apis(self) -> Mapping[str, str]:
        """API address of every node; empty where it is not known."""
        return self._merged(self._api, lambda member: member.api)

    def gateways(self) -> Mapping[str, str]:
        """Gateway address of every node; empty where it is not known."""
        return self._merged(self._gateway, lambda member: member.gateway)

    def _merged(self, settings: Mapping[str, str], known: Callable[[Member], str]) -> Mapping[str, str]:
        status = self._status()
        if status is None or not status.members:
            return settings
        return {member.node: known(member) or settings.get(member.node, "") for member in status.members}


class Announcer:
    """Tells the cluster this node's own API and gateway addresses where the configuration has others.

    An address that means every interface tells nobody where to dial: it is not announced.
    """

    def __init__(self, status: Status, members: LogAdmin, *, api: str, gateway: str) -> None:
        self._status = status
        self._members = members
        self._api = "" if _is_wildcard(api) else api
        self._gateway = "" if _is_wildcard(gateway) else gateway

    async def run(self) -> None:
        """Until cancelled; a refusal (another change is under way) is tried again, ever more rarely."""
        period_s = ANNOUNCE_PERIOD_S
        while True:
            await asyncio.sleep(period_s)
            wanted = self.due()
            if wanted is None:
                continue
            try:
                await self._members.add_member(wanted, timeout_s=ANNOUNCE_TIMEOUT_S)
                period_s = ANNOUNCE_PERIOD_S
                _log.info("addresses.announced", api=wanted.api, gateway=wanted.gateway)
            except LogError as error:
                period_s = min(2 * period_s, MAX_PERIOD_S)
                _log.info("addresses.not_announced", reason=str(error), retry_in_s=period_s)

    def due(self) -> Member | None:
        """This node with its own addresses, if the committed configuration has it and has them otherwise."""
        status = self._status()
        if status is None or not status.has_quorum or status.configuration_index > status.commit_index:
            return None
        own = next((member for member in status.members if member.node == status.node), None)
        if own is None:
            return None
        wanted = replace(own, api=self._api or own.api, gateway=self._gateway or own.gateway)
        return None if wanted == own else wanted


def _is_wildcard(address: str) -> bool:
    return address.rpartition(":")[0].strip("[]") in ("0.0.0.0", "::", "0", "*")  # asked, not bound # nosec B104
