"""Asking hosts for bids about many microVMs at once, a few hosts for each, until one offers or all were asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from controlplane.decide.rounds import KEPT_REFUSALS, Answers
from controlplane.decide.shortlist import GROWTH, WIDTH, Fleet, Shortlist
from controlplane.machine.state import State
from controlplane.model.resources import Bid, MicroVM
from controlplane.ports import AgentLink, BidRequestItem, HostUnreachableError

TIMEOUT_S = 2.0
"""For each time that hosts are asked."""


async def ask(agents: AgentLink, state: State, vms: Sequence[MicroVM], *, timeout_s: float = TIMEOUT_S) -> Answers:
    """What the hosts say that may take `vms`: for each some that offer, or all."""
    fleet = Fleet(state)
    shortlists = {vm.meta.uid: Shortlist(state, fleet, vm) for vm in vms}
    items = {vm.meta.uid: BidRequestItem(uid=vm.meta.uid, spec=vm.spec) for vm in vms}
    asked: dict[str, list[str]] = {uid: [] for uid in items}
    bids: dict[str, dict[str, Bid]] = {}
    silent: dict[str, str] = {}
    width = WIDTH
    left = list(items)
    while left:
        wanted: dict[str, list[BidRequestItem]] = {}
        taken = {uid: shortlists[uid].take(width) for uid in left}
        for uid, hosts in taken.items():
            asked[uid] += hosts
            for host in hosts:
                if host not in silent:
                    wanted.setdefault(host, []).append(items[uid])
        for host, answer in zip(sorted(wanted), await _collect(agents, wanted, timeout_s), strict=True):
            if isinstance(answer, str):
                silent[host] = answer
            else:
                bids.setdefault(host, {}).update(answer)
        left = [uid for uid in left if taken[uid] and not any(_offers(bids, host, uid) for host in taken[uid])]
        width *= GROWTH
    refused = {uid: shortlist.refused[:KEPT_REFUSALS] for uid, shortlist in shortlists.items()}
    return Answers(asked=asked, bids=bids, silent=silent, refused=refused)


def _offers(bids: Mapping[str, Mapping[str, Bid]], host: str, uid: str) -> bool:
    bid = bids.get(host, {}).get(uid)
    return bid is not None and bid.refused is None and bid.score is not None


async def _collect(
    agents: AgentLink, wanted: Mapping[str, Sequence[BidRequestItem]], timeout_s: float
) -> list[dict[str, Bid] | str]:
    """What each host answers, or why it does not; in order of name."""
    return await asyncio.gather(*(_ask(agents, host, wanted[host], timeout_s) for host in sorted(wanted)))


async def _ask(agents: AgentLink, host: str, items: Sequence[BidRequestItem], timeout_s: float) -> dict[str, Bid] | str:
    try:
        return dict(await agents.bids(host, items, timeout_s=timeout_s))
    except HostUnreachableError as error:
        return f"the host did not answer: {error}"
