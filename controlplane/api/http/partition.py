"""What a node says that has no leader: in every answer, and in the words of an operator.

Such a node can neither write nor tell what is newest. Whoever asks it for either is refused with the reason: nobody was
elected yet (`no_leader`), or this node cannot reach a majority, so that the others may well go on without it
(`no_majority`). What it answers from its own replica all the same carries `Flintlock-Age`: what was acknowledged
elsewhere in the last so many seconds may be missing. Whoever only waits for news is not left to take a partition for
calm (`until_cut_off`).
"""

from __future__ import annotations

import asyncio

from controlplane.api.http import problems
from controlplane.ports import Contact, StateReader

AGE_HEADER = "Flintlock-Age"
PATIENCE_S = 3.0
"""A change of leader takes less: whoever waits for news need not hear of it."""
RETRY_AFTER_S = 1.0
_LOOK_S = 1.0


def refusal(contact: Contact, *, retry_after_s: float = RETRY_AFTER_S) -> problems.ApiError:
    """Why a node without a leader does not answer."""
    code = "no_majority" if contact.cut_off and contact.role != "silent" else "no_leader"
    return problems.problem(code, words(contact), retry_after_s=retry_after_s, contact=shape(contact))


def shape(contact: Contact) -> problems.ContactShape:
    return problems.ContactShape(
        node=contact.node,
        leaderless_s=round(contact.since_s, 1),
        age_s=round(contact.age_s, 1),
        hears=list(contact.hears),
        misses=list(contact.misses),
        majority=contact.majority,
    )


def words(contact: Contact) -> str:
    """The position of a node without a leader, in a sentence."""
    since = f"it has had no leader for {contact.since_s:.0f} s"
    if contact.role == "silent":
        return f"the log process of this node does not answer: {since}"
    heard = ", ".join(contact.hears) or "nobody"
    if not contact.cut_off:
        return f"no leader is known: node {contact.node} hears {heard}, and {since}"
    missed = ", ".join(contact.misses)
    return (
        f"node {contact.node} cannot reach a majority ({contact.majority} voters): it hears {heard} and not {missed};"
        f" {since}"
    )


async def until_cut_off(reader: StateReader) -> None:
    """Returns when there has been no leader for longer than an election takes."""
    while True:
        contact = reader.contact
        if contact.leader is None and contact.since_s >= PATIENCE_S:
            return
        await asyncio.sleep(_LOOK_S)
