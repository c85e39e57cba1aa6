"""Answers a node's questions: bids, console, detail.

Every question is bounded in time and size and gets exactly one answer; what goes wrong comes back as a code and a
message, never as a broken session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec
import structlog

from controlplane.agent.assignments import Assignment, Assignments
from controlplane.agent.bids import Offer, Reservations, offer
from controlplane.agent.inventory import Meter
from controlplane.agent.plan import driver_for
from controlplane.agent.room import amount_of
from controlplane.agent.runner import Runner
from controlplane.agent.translate import WireError, decode_spec, encode_definition, encode_observation, encode_plan
from controlplane.model.resources import Amount
from controlplane.model.spec import MicroVMSpec
from controlplane.ports import Clock, DriverError, HostDriver
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
MAX_CONSOLE_BYTES = 1024 * 1024
MAX_BID_ITEMS = 5000
TIMEOUT_S = 30.0


class Answers:
    def __init__(
        self,
        *,
        host: str,
        capacity: Amount,
        drivers: Mapping[str, HostDriver],
        default_driver: str,
        runner: Runner,
        reservations: Reservations,
        meter: Meter,
        clock: Clock,
    ) -> None:
        self._host = host
        self._capacity = capacity
        self._drivers = drivers
        self._default_driver = default_driver
        self._runner = runner
        self._reservations = reservations
        self._meter = meter
        self._clock = clock
        self._summed: tuple[Assignments | None, Amount] = (None, Amount())

    async def answer(self, question: wire.Question) -> wire.Answer:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._answer(question)
        except DriverError as error:
            return wire.Answer(id=question.id, error_code=error.code, error=error.message)
        except WireError as error:
            return wire.Answer(id=question.id, error_code="InvalidQuestion", error=str(error))
        except TimeoutError:
            return wire.Answer(id=question.id, error_code="Timeout", error=f"no answer within {TIMEOUT_S:g} s")
        except Exception as error:
            log.exception("question failed", question=question.WhichOneof("question"))
            return wire.Answer(id=question.id, error_code="Internal", error=f"{type(error).__name__}: {error}"[:1024])

    async def _answer(self, question: wire.Question) -> wire.Answer:
        match question.WhichOneof("question"):
            case "bid":
                return wire.Answer(id=question.id, bid=await self._bid(question.bid.items))
            case "console":
                return wire.Answer(id=question.id, console=await self._console(question.console))
            case "detail":
                return wire.Answer(id=question.id, detail=self._detail(question.detail.uid))
            case "plan":
                return wire.Answer(id=question.id, plan=encode_plan(await self._runner.look_ahead()))
            case "definition":
                return wire.Answer(id=question.id, definition=await self._definition(question.definition.uid))
            case None:
                raise WireError("question: this agent is older than the node and does not know it")

    # -- bids ----------------------------------------------------------------------------------------------------------

    async def _bid(self, items: Iterable[wire.BidItem]) -> wire.Bid:
        wanted = {item.uid: decode_spec(item.spec_json, at=f"bid.{item.uid}.spec_json") for item in items}
        if len(wanted) > MAX_BID_ITEMS:
            raise WireError(f"bid.items: {len(wanted)}, at most {MAX_BID_ITEMS} are answered at once")
        refusals = await self._check(wanted)
        possible = {uid: spec for uid, spec in wanted.items() if uid not in refusals}
        offers = {uid: Offer(refused=refusal) for uid, refusal in refusals.items()} | self._offers(possible)
        reserved_ms = round(self._reservations.ttl_s * 1000)
        answers = [
            wire.BidAnswer(
                uid=uid,
                refused=made.refused or "",
                score=made.score or 0.0,
                parts=made.parts,
                reserved_ms=reserved_ms if made.refused is None else 0,
            )
            for uid, made in offers.items()
        ]
        return wire.Bid(answers=answers)

    def _offers(self, wanted: Mapping[str, MicroVMSpec]) -> dict[str, Offer]:
        """Each item on its own: they are alternatives until the leader has chosen."""
        assignments = self._runner.assignments
        assigned: Mapping[str, Assignment] = assignments.by_uid if assignments is not None else {}
        now_s = self._clock.monotonic_s()
        reserved = self._reservations.total(now_s=now_s, assigned=assigned.keys(), besides=wanted.keys())
        used = self._assigned_amount(assignments) + self._runner.taken
        for uid in wanted:
            if (assignment := assigned.get(uid)) is not None and assignment.spec is not None:
                used = used - amount_of(assignment.spec)
        made: dict[str, Offer] = {}
        for uid, spec in wanted.items():
            made[uid] = answer = offer(
                self._host,
                uid,
                spec,
                capacity=self._capacity,
                used=used,
                reserved=reserved,
                cpu_busy=self._meter.latest.cpu_busy,
            )
            if answer.refused is None:
                self._reservations.hold(uid, amount_of(spec), now_s=now_s)
        return made

    def _assigned_amount(self, assignments: Assignments | None) -> Amount:
        """What everything assigned uses; summed once for each set of assignments, however many questions come."""
        summed, total = self._summed
        if assignments is not None and assignments is not summed:
            specs = [each.spec for each in assignments.by_uid.values()]
            total = sum((amount_of(spec) for spec in specs if spec is not None), Amount())
            self._summed = assignments, total
        return total

    async def _check(self, wanted: Mapping[str, MicroVMSpec]) -> dict[str, str]:
        """uid to why a driver of this host could not run it."""
        refusals: dict[str, str] = {}
        asked: dict[tuple[str, bytes], str | None] = {}
        for uid, spec in wanted.items():
            # A thousand items are often a thousand times one spec: the driver is asked once for equal ones.
            name = spec.provider or self._default_driver
            key = (name, msgspec.json.encode(spec))
            if key not in asked:
                asked[key] = await self._refusal(name, spec)
            if (refusal := asked[key]) is not None:
                refusals[uid] = refusal
        return refusals

    async def _refusal(self, name: str, spec: MicroVMSpec) -> str | None:
        driver = self._drivers.get(name)
        if driver is None:
            return f"provider {name} is asked for, this host has {', '.join(sorted(self._drivers))}"
        try:
            await driver.check(spec)
        except DriverError as error:
            return f"{error.code}: {error.message}"
        return None

    # -- console and detail --------------------------------------------------------------------------------------------

    async def _console(self, request: wire.ConsoleRequest) -> wire.Console:
        driver = self._drivers[self._driver_of(request.uid)]
        limit = min(max(request.limit, 1), MAX_CONSOLE_BYTES)
        next_offset, data = await driver.console(request.uid, offset=request.offset, limit=limit)
        return wire.Console(next_offset=next_offset, data=data)

    def _detail(self, uid: str) -> wire.Detail:
        self._driver_of(uid)
        view = self._runner.view
        seen = view.observed.get(uid) if view is not None else None
        if seen is None:
            raise DriverError("NotObserved", f"microVM {uid} is assigned here and was not seen yet")
        return wire.Detail(observed=encode_observation(seen))

    async def _definition(self, uid: str) -> wire.Definition:
        """Of whatever driver has it."""
        record = self._runner.record(uid)
        for driver in self._drivers.values():
            if (vm := await driver.definition(uid)) is not None:
                return encode_definition(vm, record)
        raise DriverError("NotFound", f"nothing on host {self._host} says what {uid} was told to be", retryable=False)

    def _driver_of(self, uid: str) -> str:
        assignments = self._runner.assignments
        assignment = assignments.by_uid.get(uid) if assignments is not None else None
        if assignment is None:
            raise DriverError("NotAssigned", f"microVM {uid} is not assigned to host {self._host}", retryable=False)
        name = driver_for(assignment, self._runner.record(uid), self._default_driver)
        if name not in self._drivers:
            raise DriverError("DriverNotFound", f"this host has no driver {name!r}", retryable=False)
        return name
