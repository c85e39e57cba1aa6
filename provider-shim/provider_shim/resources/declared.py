"""What every declared resource does: PUT to declare, GET to read, DELETE to ask for its end.

A create carries `If-None-Match: *` and an Idempotency-Key made from name and intent alone. If Terraform is killed
before it saves the state, the same apply sends the same key and is handed its own object; anybody else's object of
that name is an error that says how to import it. A delete carries the revision that was read last (kept in the private
state), and looks at the object first only if somebody changed it since. Only a 404 that the API itself gave removes a
thing from state.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from provider_shim.client import ApiError, Client, segment
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Report, attribute, error, show_path
from provider_shim.framework.duration import parse_duration_s, show_duration
from provider_shim.framework.resource import Resource
from provider_shim.framework.types import UNKNOWN, Object, Value, is_wholly_known
from provider_shim.log import log
from provider_shim.resources.connection import Connection
from provider_shim.resources.problems import Locator, told_to_user
from provider_shim.resources.translate import Translation
from provider_shim.resources.turns import turns

DEFAULT_TIMEOUT_S = 300.0
GONE_CODES = frozenset({"not_found", "namespace_not_found"})
_THERE_CODES = frozenset({"already_exists", "idempotency_key_reused"})
"""The key says everything of a create but its secrets: whoever used it made the same with other ones."""
REVISION_KEY = "revision"
"""In the private state: that of the intent which was read or declared last."""
IN_USE_CODES = frozenset({"host_in_use", "namespace_not_empty", "policy_in_use"})
IN_USE_PATIENCE_S = 15.0
"""Terraform destroys what does not refer to each other in any order, and microVMs seldom refer to the hosts they are
on: what is in use may be free in a moment.
"""


class DeclaredResource(Resource):
    """A resource that is one object of the API."""

    translation: ClassVar[Translation]
    label: ClassVar[str]
    """What a user calls it in a sentence: `microVM`, `host`."""
    collection: ClassVar[str]
    identity: ClassVar[Mapping[str, str]] = {"name": "Name of the object."}

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- naming -------------------------------------------------------------------------------------------------------

    def path(self, state: Mapping[str, Value]) -> str:
        return f"/{self.collection}/{segment(state['name'])}"

    def show(self, state: Mapping[str, Value]) -> str:
        """Also the import id."""
        return str(state["name"])

    def parse_id(self, import_id: str) -> dict[str, str]:
        if not import_id or "/" in import_id:
            raise error(f'"{import_id}" names no {self.label}', f"The import id of a {self.type_name} is its name.")
        return {"name": import_id}

    # -- planning -----------------------------------------------------------------------------------------------------

    def modify_plan(self, call: Call, prior: Object | None, planned: Object, config: Object) -> Object:
        """Tells what the API says to it, once nothing that it says depends on what only the apply will know."""
        decided = {name: config.get(name) for name in self.schema.attributes}
        names = {name: planned.get(name) for name in self.identity}
        if not (is_wholly_known(decided) and is_wholly_known(names)):
            return planned
        body = self.body(call, prior, planned)
        rehearsals, path, locator = self._connection.rehearsals, self.path(planned), self.locator(planned)
        if prior is None:
            scope = str(planned.get("namespace") or "")
            call.report.extend(rehearsals.of_create(self.label, scope, path, body, locator))
        elif body != self.body(call, prior, prior):
            call.report.extend(rehearsals.of_change(self.label, path, body, locator))
        return planned

    # -- operations ---------------------------------------------------------------------------------------------------

    def create(self, call: Call, planned: Object) -> Object:
        deadline = self.deadline(planned, "create")
        body = self.body(call, None, planned)
        what = f"create {self.label} {self.show(planned)}"
        headers = {"If-None-Match": "*", "Idempotency-Key": self._create_key(planned, body)}
        with told_to_user(what, self.locator(planned)):
            stored = self._declare_new(call, planned, body, headers, deadline)
        self.pass_warnings(call.report, planned, stored)
        state = self._declared(planned, stored)
        call.private[REVISION_KEY] = stored["revision"]
        call.keep(state)
        self.settle(call, state, stored, deadline, created=True)
        return state

    def read(self, call: Call, state: Object) -> Object | None:
        what = f"read {self.label} {self.show(state)}"
        with told_to_user(what, self.translation):
            stored = self.fetch(state)
        if stored is None:
            if state.get("uid") is None:
                raise error(f"There is no {self.label} {self.show(state)}", "Nothing was imported.")
            return None
        if state.get("uid") not in (None, stored["uid"]):
            call.report.warn(
                f"{self.label} {self.show(state)} is another one now",
                f"State has uid {state['uid']}, which is gone; an object of the same name with uid {stored['uid']} was "
                "made by someone else. It was not adopted: import it if it is meant to be this resource.",
            )
            return None
        if stored.get("deletion_requested_at"):
            call.report.warn(
                f"{self.label} {self.show(state)} is being deleted",
                f"Asked for at {stored['deletion_requested_at']}; it stays in state until that is confirmed.",
            )
        call.private[REVISION_KEY] = stored["revision"]
        return self.state_of(call, state, stored)

    def update(self, call: Call, prior: Object, planned: Object) -> Object:
        deadline = self.deadline(planned, "update")
        what = f"update {self.label} {self.show(planned)}"
        with told_to_user(what, self.locator(planned)):
            stored = self.client.send(
                "PUT",
                self.path(planned),
                body=self.body(call, prior, planned),
                headers={"Idempotency-Key": f"tf-update-{uuid.uuid4()}"},
                deadline=deadline,
            ).body
        self.pass_warnings(call.report, planned, stored)
        state = self._declared(planned, stored)
        call.private[REVISION_KEY] = stored["revision"]
        self.settle(call, state, stored, deadline, created=False)
        return state

    def delete(self, call: Call, prior: Object) -> None:
        deadline = self.deadline(prior, "delete")
        with told_to_user(f"delete {self.label} {self.show(prior)}", self.translation):
            gone = self._end_as_read(call, prior, deadline)
            if gone is None:
                stored = self.fetch(prior, deadline=deadline)
                if stored is None:
                    return
                if prior.get("uid") not in (None, stored["uid"]):
                    call.report.warn(
                        f"{self.label} {self.show(prior)} was not deleted",
                        f"The one in state (uid {prior['uid']}) is gone already; the present one (uid {stored['uid']}) "
                        "was made by someone else.",
                    )
                    return
                headers = {"Idempotency-Key": f"tf-delete-{stored['uid']}"}
                gone = self._ask_for_the_end(call, prior, headers, deadline)
            if not gone and not self.wait_gone(call, prior, deadline):
                raise error(
                    f"{self.label} {self.show(prior)} is not gone yet",
                    f"Deletion was asked for and is still to be confirmed after {self.timeout_text(prior, 'delete')}. "
                    "It stays in state; run again to keep waiting, or raise timeouts.delete.",
                )

    # -- what a resource may refine -----------------------------------------------------------------------------------

    def settle(self, call: Call, state: Object, stored: dict[str, Any], deadline: float, *, created: bool) -> None:
        """Wait for what the user asked to wait for, once the intent is stored; by default, nothing."""

    def body(self, call: Call, prior: Object | None, planned: Object) -> dict[str, Any]:
        """What is declared when `planned` takes the place of `prior`."""
        return self.translation.body(planned)

    def locator(self, planned: Object) -> Locator:
        """Finds what the API says about a body in the attributes that it came from."""
        return self.translation

    def observed(self, call: Call, stored: dict[str, Any]) -> dict[str, Any]:
        """The object as a read should show it; the place where drift is put in."""
        return stored

    def is_adoptable(self, stored: Mapping[str, Any]) -> bool:
        """Whether a query shows the object: somebody declared it, as an object of its own."""
        return True

    def local_values(self, state: Object) -> Object:
        """Attributes that the API does not know."""
        return {"timeouts": state.get("timeouts")}

    # -- parts --------------------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        return self._connection.client()

    def fetch(self, state: Mapping[str, Value], *, deadline: float | None = None) -> dict[str, Any] | None:
        """The stored object, or None if the API says that there is none."""
        try:
            return self.client.get(self.path(state), deadline=deadline).body
        except ApiError as refusal:
            if refusal.status == 404 and refusal.code in GONE_CODES:
                return None
            raise

    def _end_as_read(self, call: Call, prior: Object, deadline: float) -> bool | None:
        """DELETE what was read last. Whether it is gone already; None where it is to be looked at first."""
        revision = call.private.get(REVISION_KEY)
        if revision is None:
            return None
        headers = {"If-Match": f'"{revision}"', "Idempotency-Key": f"tf-delete-{prior['uid']}-{revision}"}
        try:
            return self._ask_for_the_end(call, prior, headers, deadline)
        except ApiError as refusal:
            if refusal.code != "revision_conflict":
                raise
            return None

    def _ask_for_the_end(self, call: Call, prior: Object, headers: Mapping[str, str], deadline: float) -> bool:
        """DELETE it. Whether it is gone already; 202 means that its end is still to be confirmed."""
        patience = min(deadline, time.monotonic() + IN_USE_PATIENCE_S)
        for _ in turns(patience, call.cancel):
            try:
                return self.client.send("DELETE", self.path(prior), headers=headers, deadline=deadline).status == 200
            except ApiError as refusal:
                if refusal.status == 404 and refusal.code in GONE_CODES:
                    return True
                if refusal.code not in IN_USE_CODES or time.monotonic() >= patience:
                    raise
                log("info", f"{self.label} {self.show(prior)} cannot be deleted yet: {refusal.detail}")
        return False

    def wait_gone(self, call: Call, prior: Object, deadline: float) -> bool:
        for _ in turns(deadline, call.cancel):
            stored = self.fetch(prior, deadline=deadline)
            if stored is None or stored["uid"] != prior.get("uid", stored["uid"]):
                return True
        return False

    def state_of(self, call: Call, prior: Object, stored: dict[str, Any]) -> Object:
        shown = self.observed(call, stored)
        names = {name: prior[name] for name in self.identity}
        intent = self.translation.merge(prior, shown)
        return {**self.local_values(prior), **intent, **names, "id": self.show(prior), "uid": stored["uid"]}

    def _declared(self, planned: Object, stored: Mapping[str, Any]) -> Object:
        """`planned`, with what the API chose where the plan left that open."""
        chosen = self.translation.merge(planned, stored)
        known = {name: chosen.get(name, value) if value is UNKNOWN else value for name, value in planned.items()}
        return {**known, "id": self.show(planned), "uid": stored["uid"]}

    def deadline(self, state: Mapping[str, Value], operation: str) -> float:
        """A `time.monotonic()` instant."""
        return time.monotonic() + self._timeout_s(state, operation)

    def timeout_text(self, state: Mapping[str, Value], operation: str) -> str:
        return show_duration(self._timeout_s(state, operation))

    def _timeout_s(self, state: Mapping[str, Value], operation: str) -> float:
        timeouts: Any = state.get("timeouts") or {}
        chosen: Any = timeouts.get(operation)
        return parse_duration_s(chosen) if isinstance(chosen, str) else DEFAULT_TIMEOUT_S

    def pass_warnings(self, report: Report, state: Mapping[str, Value], stored: Mapping[str, Any]) -> None:
        """The API begins each with the dotted path of the field that it is about."""
        for text in map(str, stored.get("warnings") or ()):
            field, _, told = text.partition(": ")
            path = self.translation.path(f"/{field.replace('.', '/')}")
            detail = f"{show_path(path)}: {told}." if path else text
            report.warn(f"The control plane warns about {self.label} {self.show(state)}", detail, path)

    def _create_key(self, planned: Object, body: Mapping[str, Any]) -> str:
        # The key is no place for anything that follows from a secret.
        shown = {name: value for name, value in body.items() if name != "sensitive_metadata"}
        text = json.dumps([self.type_name, self.show(planned), shown], sort_keys=True, separators=(",", ":"))
        return f"tf-create-{hashlib.sha256(text.encode()).hexdigest()}"

    def _declare_new(
        self, call: Call, planned: Object, body: dict[str, Any], headers: Mapping[str, str], deadline: float
    ) -> dict[str, Any]:
        while True:
            try:
                return self.client.send("PUT", self.path(planned), body=body, headers=headers, deadline=deadline).body
            except ApiError as refusal:
                if refusal.code not in _THERE_CODES:
                    raise
                existing = self.fetch(planned, deadline=deadline)
                if existing is None:
                    if refusal.code != "already_exists":
                        raise
                    continue
                if existing.get("deletion_requested_at"):
                    # The one before is on its way out: its name is free once that is confirmed.
                    if self.wait_gone(call, {**planned, "uid": existing["uid"]}, deadline):
                        continue
                    raise error(
                        f"{self.label} {self.show(planned)} still exists",
                        "Its deletion was asked for and is still to be confirmed.",
                    ) from refusal
                raise self._already_exists(planned, existing) from refusal

    def _already_exists(self, planned: Object, existing: Mapping[str, Any]) -> Exception:
        shown = self.show(planned)
        return error(
            f"{self.label} {shown} exists already",
            f"It was made at {existing['created_at']} (uid {existing['uid']}) and is not in this state. To manage it "
            f"here, run:\n\n    terraform import {self.type_name}.NAME {shown}\n\nwith the resource's own address in "
            "place of NAME, or choose another name.",
            attribute("name"),
        )
