"""The plan in an operator's words, before it is carried out: what becomes of each microVM, and why.

It is the plan itself that is told (`agent.plan`), made as if the host had a lease; whoever carries it out makes it
again from what is then there. Also used of a host that cannot be asked, with what was last known of it
(`bootstrap.forecast`), so that there is one function that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from controlplane.agent.assignments import Assignment, Assignments
from controlplane.agent.journal import Record
from controlplane.agent.plan import Listing, Plan, driver_for, plan
from controlplane.agent.steps import Acknowledge, Create, Destroy, Restart, SetPower, ShutDown, Step, Update
from controlplane.model.resources import Amount
from controlplane.model.spec import PowerState
from controlplane.ports import PlanItem, PlanVerb


def forecast(
    assignments: Assignments,
    records: Mapping[str, Record],
    listing: Listing,
    *,
    drivers: Iterable[str],
    default_driver: str,
    capacity: Amount,
) -> tuple[PlanItem, ...]:
    """In order of namespace, name and uid; what is only reported comes last."""
    made = plan(
        assignments,
        records,
        listing,
        drivers=drivers,
        default_driver=default_driver,
        capacity=capacity,
        may_run=lambda _driver: True,
    )
    wanted = sorted(assignments.by_uid.values(), key=lambda each: (each.namespace, each.name, each.uid))
    known = [_item(made, each, records.get(each.uid), default_driver) for each in wanted]
    return (*known, *_reported(made))


def _item(made: Plan, assignment: Assignment, record: Record | None, default_driver: str) -> PlanItem:
    uid = assignment.uid
    driver = "" if uid in made.confirmed else driver_for(assignment, record, default_driver)
    if (step := made.steps.get(uid)) is not None:
        verb, reason = _verb(step, assignment, record), step.reason
    elif uid in made.confirmed:
        verb, reason = PlanVerb.DESTROY, "nothing of it is there any more: that is confirmed"
    elif uid in made.refused:
        verb, reason = PlanVerb.WAIT, made.refused[uid].message
    elif uid in made.held:
        verb, reason = PlanVerb.WAIT, made.held[uid]
    else:
        verb, reason = PlanVerb.KEEP, "it is as it is wanted"
    return PlanItem(
        verb=verb,
        uid=uid,
        namespace=assignment.namespace or None,
        name=assignment.name or None,
        epoch=assignment.epoch,
        driver=driver,
        native_id=None,
        reason=reason,
    )


def _verb(step: Step, assignment: Assignment, record: Record | None) -> PlanVerb:
    match step:
        case Destroy():
            return PlanVerb.DESTROY
        case Create():
            return PlanVerb.CREATE
        case Acknowledge():
            unknown = record is None or record.epoch != assignment.epoch
            return PlanVerb.ADOPT if unknown else PlanVerb.KEEP
        case SetPower(power=PowerState.RUNNING, drift=None):
            return PlanVerb.RESUME
        case Update() | Restart() | SetPower():
            return PlanVerb.CHANGE
        case ShutDown():
            return PlanVerb.HALT
        case _:
            return PlanVerb.KEEP


def _reported(made: Plan) -> Iterator[PlanItem]:
    for found in made.unmanaged:
        instance = found.instance
        yield PlanItem(
            verb=PlanVerb.REPORT,
            uid=instance.uid,
            namespace=instance.namespace,
            name=instance.name,
            epoch=instance.epoch,
            driver=found.driver,
            native_id=instance.native_id,
            reason="no intent accounts for it: it is listed as unmanaged and left alone",
        )
