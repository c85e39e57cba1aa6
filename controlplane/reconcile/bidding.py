"""Asking hosts for bids, all at once: the answers by host, and why others gave none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from controlplane.model.resources import Bid
from controlplane.ports import AgentLink, BidRequestItem, HostUnreachableError

TIMEOUT_S = 2.0


async def collect(
    agents: AgentLink, wanted: Mapping[str, Sequence[BidRequestItem]]
) -> tuple[dict[str, dict[str, Bid]], dict[str, str]]:
    """(host -> uid -> bid, host -> why it did not answer)."""
    hosts = sorted(wanted)
    answers = await asyncio.gather(*(_ask(agents, host, wanted[host]) for host in hosts))
    bids = {host: answer for host, answer in zip(hosts, answers, strict=True) if isinstance(answer, dict)}
    silent = {host: answer for host, answer in zip(hosts, answers, strict=True) if isinstance(answer, str)}
    return bids, silent


async def _ask(agents: AgentLink, host: str, items: Sequence[BidRequestItem]) -> dict[str, Bid] | str:
    try:
        return dict(await agents.bids(host, items, timeout_s=TIMEOUT_S))
    except HostUnreachableError as error:
        return f"the host did not answer: {error}"
