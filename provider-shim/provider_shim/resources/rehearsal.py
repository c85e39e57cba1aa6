"""What the control plane says to a declaration that is only planned.

A create or a change is rehearsed by the API (`?dry_run=true`), which does to a copy of its state what it would do to
the state itself. What could never be applied is an error of the plan, on its line of HCL. What would be refused as
things are, and which something else in the same apply may mend (a quota, room on the hosts), is a warning, or an error
where the provider says `plan_checks = "strict"`. What is merely not there yet (a namespace, a policy, a role) may be
part of the same apply and is not mentioned. A control plane that does not answer keeps no plan from being made.

Equal creates have equal verdicts, so a fleet of a thousand equal microVMs is asked about once.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, Literal

from provider_shim.client import ApiError, CancelledError, Client, UnreachableError
from provider_shim.framework.diagnostics import Diagnostic
from provider_shim.log import log
from provider_shim.resources.problems import Locator, explain

Checks = Literal["strict", "warn", "off"]
CHECKS: Final[tuple[Checks, ...]] = ("strict", "warn", "off")
PATIENCE_S: Final = 5.0
_NEVER: Final = frozenset({"invalid", "unauthenticated", "role_built_in"})
AS_THINGS_ARE: Final = frozenset({"quota_exceeded", "insufficient_capacity", "constraint_violated", "forbidden"})
_REFUSALS_SHOWN: Final = 3

Verdict = tuple[Diagnostic, ...]


class Rehearsals:
    """Of one provider process."""

    def __init__(self, client: Callable[[], Client], checks: Callable[[], Checks]) -> None:
        self._client = client
        self._checks = checks
        self._lock = threading.Lock()
        self._verdicts: dict[str, Future[Verdict]] = {}
        self._unanswered = False

    def of_create(self, kind: str, scope: str, path: str, body: Mapping[str, Any], locator: Locator) -> Verdict:
        """`scope`: what beside the body decides, such as the namespace. `kind` is what a user calls it."""
        key = json.dumps([kind, scope, body], sort_keys=True)
        with self._lock:
            known = self._verdicts.get(key)
            mine = None if known is not None else self._verdicts.setdefault(key, Future())
        if known is not None:
            return known.result()
        assert mine is not None
        try:
            verdict = self._ask(kind, path, body, locator)
        except BaseException as problem:
            mine.set_exception(problem)
            raise
        mine.set_result(verdict)
        return verdict

    def of_change(self, kind: str, path: str, body: Mapping[str, Any], locator: Locator) -> Verdict:
        return self._ask(kind, path, body, locator)

    def _ask(self, kind: str, path: str, body: Mapping[str, Any], locator: Locator) -> Verdict:
        if self._unanswered or self._checks() == "off":
            return ()
        try:
            deadline = time.monotonic() + PATIENCE_S
            found = self._client().send("PUT", path, body=body, query={"dry_run": "true"}, deadline=deadline).body
        except ApiError as refusal:
            return self._refused(refusal, kind, locator)
        except UnreachableError as problem:
            self._unanswered = True
            log("warn", "the plan was not rehearsed: the control plane does not answer", reason=str(problem))
            return ()
        except CancelledError:
            return ()
        members = found.get("members")
        return self._placed(kind, path, found.get("placement")) if members is None else self._filled(path, members)

    def _refused(self, refusal: ApiError, kind: str, locator: Locator) -> Verdict:
        told = explain(refusal, f"declare this {kind} as planned", locator)
        if refusal.code in _NEVER:
            return tuple(told)
        if refusal.code in AS_THINGS_ARE:
            summary = f"Applying this {kind} will be refused as things are"
            return tuple(Diagnostic(self._severity, summary, each.detail, each.path) for each in told)
        return ()

    def _placed(self, kind: str, path: str, placement: Mapping[str, Any] | None) -> Verdict:
        """`placement`: where the control plane would put it now, if that is a question."""
        if placement is None:
            return ()
        if placement["host"] is not None:
            log("info", f"would be placed on {placement['host']}", path=path, reason=placement["reason"])
            return ()
        detail = f"{_why_nobody(placement)} It would wait until one does."
        return (Diagnostic(self._severity, f"No host would take this {kind} as things are", detail),)

    def _filled(self, path: str, members: Mapping[str, Any]) -> Verdict:
        """`members`: what would become of those that a group lacks."""
        shares = ", ".join(f"{each['members']} on {each['host']}" for each in members["hosts"])
        looked_at, missing = members["looked_at"], members["missing"]
        if shares:
            log("info", f"members would be placed: {shares}", path=path, missing=missing, looked_at=looked_at)
        found: list[Diagnostic] = []
        if (stopped := members["stopped"]) is not None:
            detail = f"{stopped['message']}. The group would be declared, and get no further until that is mended."
            summary = f"This group would stop at {looked_at} of {missing} members that it lacks, as things are"
            found.append(Diagnostic(self._severity, summary, f"{detail} [{stopped['reason']}]"))
        if members["unplaced"]:
            of = f"{looked_at} members" if looked_at == missing else f"the first {looked_at} of {missing} members"
            summary = f"No host would take {members['unplaced']} of {of} of this group as things are"
            there = f" The others would go: {shares}." if shares else ""
            found.append(Diagnostic(self._severity, summary, f"{_why_nobody(members)} They would wait.{there}"))
        return tuple(found)

    @property
    def _severity(self) -> Literal["error", "warning"]:
        return "error" if self._checks() == "strict" else "warning"


def _why_nobody(answer: Mapping[str, Any]) -> str:
    """Its reason, and what some of the hosts say."""
    refusals = [f"{bid['host']}: {bid['refused']}" for bid in answer["bids"] if bid.get("refused")]
    more = len(refusals) - _REFUSALS_SHOWN
    listed = "; ".join([*refusals[:_REFUSALS_SHOWN], *([f"and {more} more"] if more > 0 else [])])
    return f"{answer['reason'].rstrip('.')}.{f' {listed}.' if listed else ''}"
