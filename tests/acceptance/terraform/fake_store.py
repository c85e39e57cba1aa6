"""An in-memory stand-in for the control plane's state, as far as the provider can see it.

Specs are validated by the control plane's own model, so a body that passes here passes there. A microVM runs as soon
as it is declared unless a test says otherwise (`hold`, `fail_guest`); drift is put in by tests and taken away by a
repair.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from controlplane.model.access import RoleBindingSpec, RoleSpec
from controlplane.model.spec import (
    MICROVM_FIELD_EFFECTS,
    Effect,
    FailoverPolicySpec,
    GCPolicySpec,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    PlacementPolicySpec,
)
from controlplane.model.types import Annotations, Labels

SPECS: dict[str, TypeAdapter[Any]] = {
    "MicroVM": TypeAdapter(MicroVMSpec),
    "Host": TypeAdapter(HostSpec),
    "Namespace": TypeAdapter(NamespaceSpec),
    "PlacementPolicy": TypeAdapter(PlacementPolicySpec),
    "FailoverPolicy": TypeAdapter(FailoverPolicySpec),
    "GCPolicy": TypeAdapter(GCPolicySpec),
    "Role": TypeAdapter(RoleSpec),
    "RoleBinding": TypeAdapter(RoleBindingSpec),
}
_LABELS = TypeAdapter[dict[str, str]](Labels)
_ANNOTATIONS = TypeAdapter[dict[str, str]](Annotations)

Key = tuple[str, str, str]
"""Kind, namespace (empty for what has none), name."""


@dataclass
class ProblemError(Exception):
    status: int
    code: str
    title: str
    detail: str = ""
    hint: str = ""
    errors: list[dict[str, str]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        return {
            "type": f"https://flintlock.dev/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
            "errors": self.errors,
            **self.extra,
        }


def not_found(key: Key) -> ProblemError:
    return ProblemError(404, "not_found", f"{key[0]} {key[2]} does not exist")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.revision = 1
        self.objects: dict[Key, dict[str, Any]] = {}
        self.keys: dict[str, tuple[str, str, Key]] = {}
        """Idempotency key -> (digest of the body, uid, object key)."""
        self.created_uids: list[str] = []
        self.repairs: list[Key] = []
        self.hold = False
        """Whether new microVMs stay pending."""
        self.hold_deletes = False
        self.fail_guest: str | None = None
        self.refusal: ProblemError | None = None
        """What every rehearsal is told."""
        self.placement: dict[str, Any] | None = None
        """Where a rehearsal would place what it creates."""

    # -- declaring ----------------------------------------------------------------------------------------------------

    def put(self, key: Key, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        with self.changed:
            spec, labels, annotations = self._validate(key, body)
            present = self.objects.get(key)
            repeated = self._repeated(headers, body)
            if repeated is not None:
                return 200, {**repeated, "warnings": [], "changed": False}
            if present is not None and headers.get("if-none-match") == "*":
                existing = {"uid": present["uid"], "created_at": present["created_at"]}
                raise ProblemError(412, "already_exists", "It exists already", extra={"existing": existing})
            if present is None:
                return 201, {
                    **self._create(key, spec, labels, annotations, headers, body),
                    "warnings": [],
                    "changed": True,
                }
            return 200, {**self._update(key, present, spec, labels, annotations), "warnings": []}

    def rehearse(self, key: Key, body: Any) -> dict[str, Any]:
        with self.changed:
            self._validate(key, body)
            if self.refusal is not None:
                raise self.refusal
            outcome = "update" if key in self.objects else "create"
            placement = self.placement if outcome == "create" else None
            return {"dry_run": True, "outcome": outcome, "changes": [], "placement": placement, "warnings": []}

    def _validate(self, key: Key, body: Any) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
        for name in body:
            if name not in ("labels", "annotations", "spec"):
                raise ProblemError(
                    422, "invalid", "Invalid", errors=[{"pointer": f"/{name}", "message": "unknown field"}]
                )
        if key[0] == "MicroVM" and ("Namespace", "", key[1]) not in self.objects:
            entry = {"pointer": "/namespace", "message": f'namespace "{key[1]}" does not exist'}
            raise ProblemError(404, "namespace_not_found", "Namespace not found", errors=[entry])
        try:
            spec = asdict(SPECS[key[0]].validate_python(body.get("spec", {})))
            labels = _LABELS.validate_python(body.get("labels", {}))
            return spec, labels, _ANNOTATIONS.validate_python(body.get("annotations", {}))
        except ValidationError as problem:
            errors = [
                {"pointer": "/spec/" + "/".join(str(part) for part in each["loc"]), "message": each["msg"]}
                for each in problem.errors()
            ]
            raise ProblemError(422, "invalid", "The body is invalid", errors=errors) from problem

    def _repeated(self, headers: dict[str, str], body: Any) -> dict[str, Any] | None:
        known = self.keys.get(headers.get("idempotency-key", ""))
        if known is None:
            return None
        digest, uid, key = known
        if digest != _digest(body):
            raise ProblemError(422, "idempotency_key_reused", "The Idempotency-Key was used for another body")
        present = self.objects.get(key)
        return present if present is not None and present["uid"] == uid else None

    def _create(
        self,
        key: Key,
        spec: dict[str, Any],
        labels: dict[str, str],
        annotations: dict[str, str],
        headers: dict[str, str],
        body: Any,
    ) -> dict[str, Any]:
        uid = f"01FAKE{len(self.created_uids):020d}"
        self.created_uids.append(uid)
        made: dict[str, Any] = {
            "kind": key[0],
            "name": key[2],
            **({"namespace": key[1]} if key[1] else {}),
            "uid": uid,
            "labels": labels,
            "annotations": annotations,
            "generation": 1,
            "created_at": _now(),
            "deletion_requested_at": None,
            "spec": spec,
            "status": self._first_status(key[0], spec),
        }
        self.objects[key] = made
        if headers.get("idempotency-key"):
            self.keys[headers["idempotency-key"]] = (_digest(body), uid, key)
        self._touch(made)
        return made

    def _first_status(self, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        if kind == "Host":
            return {"phase": "expected", "drivers": [], "conditions": [], "unmanaged": []}
        if kind != "MicroVM":
            return {"phase": "active", "used": {"microvms": 0, "vcpu": 0, "memory_in_mb": 0}, "used_by": 0}
        status = {
            "phase": "pending",
            "observed_generation": None,
            "host": None,
            "epoch": 0,
            "power_state": None,
            "ready": False,
            "simulated": True,
            "driver": None,
            "observed_at": None,
            "details": {},
            "interfaces": {},
            "conditions": [
                {
                    "type": "Placed",
                    "status": "false",
                    "reason": "NoCapacity",
                    "message": "no host has room",
                    "since": None,
                }
            ],
            "drift": {"class": "progressing", "fields": []},
        }
        if self.fail_guest:
            status["phase"] = "failed"
            status["conditions"] = [
                {"type": "Running", "status": "false", "reason": "Failed", "message": self.fail_guest, "since": None}
            ]
        elif not self.hold:
            self._run(status, spec, 1)
        return status

    @staticmethod
    def _run(status: dict[str, Any], spec: dict[str, Any], generation: int) -> None:
        status.update(
            phase="active",
            observed_generation=generation,
            host="h1",
            epoch=1,
            power_state=spec["power_state"],
            ready=True,
            driver="simulated",
            observed_at=_now(),
            interfaces={
                name: {"host_device": f"tap-{name}", "mac_address": "02:00:00:00:00:01"} for name in spec["interfaces"]
            },
            conditions=[{"type": "Running", "status": "true", "reason": "Running", "message": "", "since": _now()}],
            drift={"class": "in_sync", "fields": []},
        )

    def _update(
        self,
        key: Key,
        present: dict[str, Any],
        spec: dict[str, Any],
        labels: dict[str, str],
        annotations: dict[str, str],
    ) -> dict[str, Any]:
        if key[0] == "MicroVM":
            replaced = [
                {"pointer": f"/spec/{name}", "message": "changing this makes another microVM of it"}
                for name, effect in MICROVM_FIELD_EFFECTS.items()
                if effect is Effect.REPLACE and present["spec"][name] != spec[name]
            ]
            if replaced:
                raise ProblemError(409, "requires_replacement", "A replacement is needed", errors=replaced)
        after = {"spec": spec, "labels": labels, "annotations": annotations}
        if all(present[name] == value for name, value in after.items()):
            return {**present, "changed": False}
        changed_spec = present["spec"] != spec
        present.update(after)
        if changed_spec:
            present["generation"] += 1
            if key[0] == "MicroVM" and present["status"]["drift"]["class"] != "drifted":
                self._run(present["status"], spec, present["generation"])
        self._touch(present)
        return {**present, "changed": True}

    def delete(self, key: Key, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        with self.changed:
            present = self.objects.get(key)
            if present is None:
                raise not_found(key)
            if (headers or {}).get("if-match", f'"{present["revision"]}"') != f'"{present["revision"]}"':
                raise ProblemError(412, "revision_conflict", "It has changed since it was read")
            if key[0] == "Namespace" and any(k[0] == "MicroVM" and k[1] == key[2] for k in self.objects):
                raise ProblemError(409, "namespace_not_empty", "The namespace holds microVMs", "Delete them first.")
            if self.hold_deletes and key[0] == "MicroVM":
                present["deletion_requested_at"] = present["deletion_requested_at"] or _now()
                present["status"]["phase"] = "deleting"
                self._touch(present)
                return 202, present
            del self.objects[key]
            self.revision += 1
            self.changed.notify_all()
            return 200, present

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, key: Key) -> dict[str, Any]:
        with self.changed:
            present = self.objects.get(key)
            if present is None:
                raise not_found(key)
            return present

    def items(self, kind: str, namespace: str | None, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        wanted = dict(part.partition("=")[::2] for part in query.get("label", []))
        with self.changed:
            return [
                found
                for key, found in sorted(self.objects.items())
                if key[0] == kind
                and (namespace is None or key[1] == namespace)
                and wanted.items() <= found["labels"].items()
                and (not query.get("name") or key[2] in query["name"])
                and (not query.get("host") or query["host"][0] == found["status"].get("host"))
            ]

    def wait(self, key: Key, target: str, generation: int, wait_s: float) -> tuple[str, dict[str, Any]]:
        end = time.monotonic() + wait_s
        with self.changed:
            while True:
                present = self.get(key)
                if target != "gone":
                    if present["status"]["phase"] == "failed":
                        return "failed", present
                    if _holds(present, target, generation):
                        return "done", present
                remaining = end - time.monotonic()
                if remaining <= 0:
                    return "timeout", present
                self.changed.wait(remaining)

    # -- what happens behind the user's back --------------------------------------------------------------------------

    def drift(self, key: Key, pointer: str, observed: Any, cause: str) -> None:
        with self.changed:
            present = self.objects[key]
            desired: Any = present
            for part in pointer.split("/")[1:]:
                desired = desired.get(part) if isinstance(desired, dict) else None
            entry = {"pointer": pointer, "desired": desired, "observed": observed, "since": _now(), "cause": cause}
            present["status"]["drift"] = {"class": "drifted", "fields": [entry]}
            self._touch(present)

    def repair(self, key: Key) -> None:
        with self.changed:
            present = self.get(key)
            self.repairs.append(key)
            self._run(present["status"], present["spec"], present["generation"])
            self._touch(present)

    def release(self) -> None:
        """Let everything that is held go on."""
        with self.changed:
            self.hold = self.hold_deletes = False
            for key, present in list(self.objects.items()):
                if key[0] != "MicroVM":
                    continue
                if present["deletion_requested_at"]:
                    del self.objects[key]
                else:
                    self._run(present["status"], present["spec"], present["generation"])
            self.revision += 1
            self.changed.notify_all()

    def _touch(self, present: dict[str, Any]) -> None:
        self.revision += 1
        present["revision"] = self.revision
        present["updated_at"] = _now()
        self.changed.notify_all()


def _holds(present: dict[str, Any], target: str, generation: int) -> bool:
    status = present["status"]
    if (status["observed_generation"] or 0) < generation:
        return False
    match target:
        case "ready":
            return bool(status["power_state"] == "running" and status["ready"])
        case "settled":
            return bool(status["power_state"] == present["spec"]["power_state"])
        case "in_sync":
            return bool(status["drift"]["class"] == "in_sync")
        case _:
            return bool(status["power_state"] == target)


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
