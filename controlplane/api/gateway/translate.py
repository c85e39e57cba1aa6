"""Between the wire and the model. Pure. What an agent sends is bounded here, and refused by naming the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor, isfinite
from types import MappingProxyType

import msgspec

from controlplane.api.gateway.bounds import MAX_NAME, MAX_TEXT, WireError
from controlplane.api.gateway.bounds import number as _number
from controlplane.api.gateway.bounds import text as _text
from controlplane.model.commands import Destroyed
from controlplane.model.gc import Deletion
from controlplane.model.resources import (
    Amount,
    Bid,
    DriverFacts,
    Failure,
    InterfaceFacts,
    Inventory,
    MicroVM,
    Observation,
    ObservedPower,
    Unmanaged,
)
from controlplane.ports import BidRequestItem, Contact, DriverError, Grant, NodeView, PlanItem, PlanVerb
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

PROTOCOL = 1
NOTHING: Mapping[str, str] = MappingProxyType({})
MAX_ENTRIES = 64
MAX_UNMANAGED = 1000
MAX_PLANNED = 50_000
MAX_DRIVERS = 16
MAX_TIME_MS = 2**48 - 1
MAX_HELD_TTL_MS = 3_600_000
"""What an agent may claim to hold a lease of: the longest that any node may be set to grant."""
_QUESTION_BYTES = 4 * 1024 * 1024


# -- from agents -------------------------------------------------------------------------------------------------------


def decode_hello(hello: wire.Hello) -> Inventory:
    """Raises WireError."""
    if hello.protocol != PROTOCOL:
        raise WireError(f"hello.protocol: {hello.protocol}; this node speaks {PROTOCOL}")
    _text("hello.session", hello.session, MAX_NAME, required=True)
    if not 1 <= len(hello.drivers) <= MAX_DRIVERS:
        raise WireError(f"hello.drivers: {len(hello.drivers)}; a host has 1 to {MAX_DRIVERS}")
    names = [driver.name for driver in hello.drivers]
    if len(set(names)) != len(names):
        raise WireError(f"hello.drivers: a name occurs twice in {', '.join(names)}")
    return Inventory(
        agent_version=_text("hello.agent_version", hello.agent_version, MAX_NAME),
        boot_id=_text("hello.boot_id", hello.boot_id, MAX_NAME),
        drivers=[
            DriverFacts(
                name=_text("hello.drivers.name", driver.name, MAX_NAME, required=True),
                version=_text("hello.drivers.version", driver.version, MAX_NAME),
                simulated=driver.simulated,
                accelerator=_text("hello.drivers.accelerator", driver.accelerator, MAX_NAME) or None,
                fences=driver.fences,
                lease_problem=_text("hello.drivers.lease_problem", driver.lease_problem, MAX_TEXT),
            )
            for driver in hello.drivers
        ],
        capacity=Amount(
            microvms=_number("hello.capacity.microvms", hello.capacity.microvms),
            vcpu=_number("hello.capacity.vcpu", hello.capacity.vcpu, least=1),
            memory_in_mb=_number("hello.capacity.memory_in_mb", hello.capacity.memory_in_mb, least=1),
        ),
    )


def decode_held_ttl_ms(hello: wire.Hello) -> int:
    """Raises WireError."""
    return _number("hello.held_ttl_ms", hello.held_ttl_ms, most=MAX_HELD_TTL_MS)


def decode_observation(host: str, seen: wire.Observed) -> Observation:
    """Raises WireError."""
    at = f"observed.{seen.uid[:MAX_NAME]}"
    failure = None
    if seen.HasField("failure"):
        failure = Failure(
            code=_text(f"{at}.failure.code", seen.failure.code, MAX_NAME, required=True),
            message=_text(f"{at}.failure.message", seen.failure.message, MAX_TEXT),
            pointer=_text(f"{at}.failure.pointer", seen.failure.pointer, MAX_NAME) or None,
            permanent=seen.failure.permanent,
        )
    if len(seen.details) > MAX_ENTRIES or len(seen.interfaces) > MAX_ENTRIES:
        raise WireError(f"{at}: more than {MAX_ENTRIES} details or interfaces")
    return Observation(
        uid=_text("observed.uid", seen.uid, MAX_NAME, required=True),
        host=host,
        epoch=_number(f"{at}.epoch", seen.epoch, least=1),
        at=_number(f"{at}.at_ms", seen.at_ms, most=MAX_TIME_MS),
        power=_power(f"{at}.power", seen.power),
        generation=_number(f"{at}.generation", seen.generation) or None,
        repair_seq=_number(f"{at}.repair_seq", seen.repair_seq),
        restart_seq=_number(f"{at}.restart_seq", seen.restart_seq),
        ready=seen.ready,
        vcpu=_number(f"{at}.vcpu", seen.vcpu) or None,
        memory_in_mb=_number(f"{at}.memory_in_mb", seen.memory_in_mb) or None,
        driver=_text(f"{at}.driver", seen.driver, MAX_NAME) or None,
        simulated=seen.simulated,
        cause=_text(f"{at}.cause", seen.cause, MAX_TEXT) or None,
        failure=failure,
        details={
            _text(f"{at}.details", key, MAX_NAME): _text(f"{at}.details.{key[:64]}", value, MAX_TEXT)
            for key, value in sorted(seen.details.items())
        },
        interfaces={
            _text(f"{at}.interfaces", device, MAX_NAME): InterfaceFacts(
                host_device=_text(f"{at}.interfaces.host_device", facts.host_device, MAX_NAME),
                mac_address=_text(f"{at}.interfaces.mac_address", facts.mac_address, MAX_NAME),
            )
            for device, facts in sorted(seen.interfaces.items())
        },
        halted=seen.halted,
    )


def decode_unmanaged(found: Sequence[wire.Unmanaged]) -> list[Unmanaged]:
    """In the order in which the state keeps them. Raises WireError."""
    if len(found) > MAX_UNMANAGED:
        raise WireError(f"unmanaged: {len(found)}; at most {MAX_UNMANAGED} are named")
    strangers = [
        Unmanaged(
            native_id=_text("unmanaged.native_id", each.native_id, MAX_NAME, required=True),
            driver=_text("unmanaged.driver", each.driver, MAX_NAME, required=True),
            uid=_text("unmanaged.uid", each.uid, MAX_NAME) or None,
            namespace=_text("unmanaged.namespace", each.namespace, MAX_NAME) or None,
            name=_text("unmanaged.name", each.name, MAX_NAME) or None,
            epoch=each.epoch or None,
            power=_power("unmanaged.power", each.power),
            ours=each.ours,
        )
        for each in found
    ]
    return sorted(strangers, key=lambda each: (each.driver, each.native_id))


def decode_destroyed(gone: wire.Confirmed) -> Destroyed:
    """Raises WireError."""
    return Destroyed(
        uid=_text("destroyed.uid", gone.uid, MAX_NAME, required=True),
        epoch=_number("destroyed.epoch", gone.epoch, least=1),
    )


def _power(name: str, value: str) -> ObservedPower:
    try:
        return ObservedPower(value)
    except ValueError:
        raise WireError(f"{name}: {value[:MAX_NAME]!r} is not one of {', '.join(ObservedPower)}") from None


# -- to agents ---------------------------------------------------------------------------------------------------------


def encode_assignment(vm: MicroVM, *, with_spec: bool, sensitive: Mapping[str, str] = NOTHING) -> wire.Assignment:
    """`sensitive`: the values of the spec's secrets."""
    destroy = vm.is_tombstone
    return wire.Assignment(
        uid=vm.meta.uid,
        namespace=vm.meta.namespace or "",
        name=vm.meta.name,
        epoch=vm.epoch,
        generation=vm.meta.generation,
        repair_seq=vm.repair_seq,
        restart_seq=vm.restart_seq,
        destroy=destroy,
        spec_json=msgspec.json.encode(vm.spec) if with_spec and not destroy else b"",
        labels=vm.meta.labels,
        reason=reason_of(vm.deletion),
        halt=vm.is_halted,
        sensitive=sensitive if with_spec and not destroy else NOTHING,
    )


def encode_order(uid: str, epoch: int, order: Deletion | None) -> wire.Assignment:
    """To destroy the copy of a microVM that was given up on the host: of the microVM nothing else is known any more."""
    return wire.Assignment(uid=uid, epoch=epoch, destroy=True, reason=reason_of(order))


def reason_of(order: Deletion | None) -> str:
    return f"{order.reason} ({order.actor})" if order is not None else ""


# -- questions ---------------------------------------------------------------------------------------------------------


def encode_bid_requests(items: Sequence[BidRequestItem]) -> list[wire.BidRequest]:
    """As many requests as keep each within the message limit."""
    requests: list[wire.BidRequest] = []
    size = _QUESTION_BYTES
    for item in items:
        encoded = wire.BidItem(uid=item.uid, spec_json=msgspec.json.encode(item.spec))
        if size + len(encoded.spec_json) > _QUESTION_BYTES:
            requests.append(wire.BidRequest())
            size = 0
        requests[-1].items.append(encoded)
        size += len(encoded.spec_json) + 64
    return requests


def decode_bids(host: str, items: Iterable[wire.BidItem], answer: wire.Answer) -> Mapping[str, Bid]:
    """A bid for every item; one that was not answered is a refusal that says so."""
    answers = {each.uid: each for each in answer.bid.answers}
    error = f"{answer.error_code}: {answer.error}" if answer.error_code else "the agent did not answer this item"
    bids: dict[str, Bid] = {}
    for item in items:
        each = answers.get(item.uid)
        if each is None:
            bids[item.uid] = Bid(host=host, refused=error[:MAX_TEXT])
        elif each.refused:
            bids[item.uid] = Bid(host=host, refused=each.refused[:MAX_TEXT])
        elif not all(map(isfinite, (each.score, *each.parts.values()))):
            bids[item.uid] = Bid(host=host, refused="the agent's score is not a number")
        else:
            parts = {key: each.parts[key] for key in sorted(each.parts)[:MAX_ENTRIES]}
            bids[item.uid] = Bid(host=host, score=each.score, parts=parts)
    return bids


def decode_plan(answer: wire.Answer) -> list[PlanItem]:
    """Raises WireError."""
    if len(answer.plan.items) > MAX_PLANNED:
        raise WireError(f"plan.items: {len(answer.plan.items)}; at most {MAX_PLANNED} are read")
    return [
        PlanItem(
            verb=_verb(item.verb),
            uid=_text("plan.uid", item.uid, MAX_NAME) or None,
            namespace=_text("plan.namespace", item.namespace, MAX_NAME) or None,
            name=_text("plan.name", item.name, MAX_NAME) or None,
            epoch=item.epoch or None,
            driver=_text("plan.driver", item.driver, MAX_NAME),
            native_id=_text("plan.native_id", item.native_id, MAX_NAME) or None,
            reason=_text("plan.reason", item.reason, MAX_TEXT),
        )
        for item in answer.plan.items
    ]


def _verb(value: str) -> PlanVerb:
    try:
        return PlanVerb(value)
    except ValueError:
        raise WireError(f"plan.verb: {value[:MAX_NAME]!r} is not one of {', '.join(PlanVerb)}") from None


def raise_error(answer: wire.Answer) -> None:
    """Raises DriverError when the answer is one."""
    if answer.error_code:
        raise DriverError(answer.error_code, answer.error)


# -- leases ------------------------------------------------------------------------------------------------------------


def encode_endpoints(nodes: Mapping[str, str]) -> list[wire.Endpoint]:
    """Of nodes whose HOST:PORT is known."""
    return [wire.Endpoint(node=node, address=address) for node, address in sorted(nodes.items()) if address]


def encode_grant(grant: Grant) -> wire.Grant:
    """For the agent; never longer than it was granted."""
    return wire.Grant(sequence=grant.sequence, ttl_ms=_whole_ms(grant.ttl_s), grace_ms=_whole_ms(grant.grace_s))


def encode_grants(grants: Iterable[Grant]) -> list[wire.Granted]:
    """For the node whose sessions they are; never longer than they were granted."""
    return [
        wire.Granted(
            host=grant.host,
            session=grant.session,
            sequence=grant.sequence,
            ttl_ms=_whole_ms(grant.ttl_s),
            grace_ms=_whole_ms(grant.grace_s),
        )
        for grant in grants
    ]


def decode_grants(granted: Iterable[wire.Granted]) -> list[Grant]:
    return [
        Grant(
            host=each.host,
            session=each.session,
            sequence=each.sequence,
            ttl_s=each.ttl_ms / 1000,
            grace_s=each.grace_ms / 1000,
        )
        for each in granted
    ]


# -- what nodes believe ------------------------------------------------------------------------------------------------


def encode_view(view: NodeView) -> wire.ViewReply:
    contact = view.contact
    reply = wire.ViewReply(
        node=contact.node,
        role=contact.role,
        term=contact.term,
        leader=contact.leader or "",
        since_ms=_whole_ms(contact.since_s),
        age_ms=_whole_ms(contact.age_s),
        hears=contact.hears,
        misses=contact.misses,
        majority=contact.majority,
        votes=contact.votes,
        revision=view.revision,
    )
    if view.waits_s is not None:
        reply.waits_ms = _whole_ms(view.waits_s)
    return reply


def decode_view(reply: wire.ViewReply) -> NodeView:
    contact = Contact(
        node=reply.node,
        role=reply.role,
        term=reply.term,
        leader=reply.leader or None,
        since_s=reply.since_ms / 1000,
        age_s=reply.age_ms / 1000,
        hears=tuple(reply.hears),
        misses=tuple(reply.misses),
        majority=reply.majority,
        votes=reply.votes,
    )
    waits_s = reply.waits_ms / 1000 if reply.HasField("waits_ms") else None
    return NodeView(contact=contact, revision=reply.revision, waits_s=waits_s)


def _whole_ms(seconds: float) -> int:
    return floor(seconds * 1000)
