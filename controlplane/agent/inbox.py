"""Assembles assignments out of the messages of one session. Pure.

A revision may come in several messages and counts once the last is there. A spec travels once per uid, epoch and
generation; afterwards the session remembers it. Revisions never go back within a session: the node's replica was at or
above the agent's own connection when it began, so an older one can only be a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.agent.assignments import Assignment, Assignments, Clearing
from controlplane.agent.translate import WireError, decode_assignment, decode_clearing, decode_spec
from controlplane.model.spec import MicroVMSpec
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

_SpecKey = tuple[str, int, int]


class Inbox:
    def __init__(self, cluster_id: str) -> None:
        self._cluster_id = cluster_id
        self._revision = -1
        self._partial: dict[str, Assignment] = {}
        self._partial_revision: int | None = None
        self._clearings: list[Clearing] = []
        self._specs: dict[_SpecKey, tuple[MicroVMSpec, Mapping[str, str]]] = {}

    def take(self, message: wire.Assignments) -> Assignments | None:
        """The assignments that this message completes, if it does. Raises WireError; then nothing was taken."""
        if self._partial_revision not in (None, message.revision):
            raise WireError(f"assignments.revision: {message.revision} within revision {self._partial_revision}")
        if message.revision < self._revision:
            raise WireError(f"assignments.revision: went back from {self._revision} to {message.revision}")
        taken = {one.uid: self._decode(one) for one in message.assignments}
        self._partial.update(taken)
        self._clearings += [decode_clearing(one) for one in message.clearings]
        if message.more:
            self._partial_revision = message.revision
            return None
        complete, self._partial, self._partial_revision = self._partial, {}, None
        clearings, self._clearings = self._clearings, []
        self._revision = message.revision
        kept = {(one.uid, one.epoch, one.generation) for one in complete.values()}
        self._specs = {key: spec for key, spec in self._specs.items() if key in kept}
        return Assignments(
            cluster_id=self._cluster_id,
            revision=message.revision,
            by_uid=complete,
            clearings=clearings,
            governs_leftovers=message.governs_leftovers,
        )

    def _decode(self, message: wire.Assignment) -> Assignment:
        at = f"assignments.{message.uid}"
        if not message.uid or message.epoch < 1:
            raise WireError(f"{at}: uid and epoch are required")
        if message.destroy:
            return decode_assignment(message, None)
        key = (message.uid, message.epoch, message.generation)
        if message.spec_json:
            spec = decode_spec(message.spec_json, at=f"{at}.spec_json")
            if missing := sorted(spec.sensitive_metadata.keys() - message.sensitive.keys()):
                raise WireError(f"{at}.sensitive.{missing[0]}: missing, and the spec has it")
            self._specs[key] = spec, dict(message.sensitive)
        known = self._specs.get(key)
        if known is None:
            raise WireError(f"{at}.spec_json: missing, and this session has not carried it before")
        return decode_assignment(message, *known)
