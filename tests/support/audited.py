"""A machine whose audit chain has begun, driven by a test as the log drives it: entry by entry."""

from __future__ import annotations

from controlplane.machine.entry import apply_entry
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.model.audit import AuditRecord, Origin
from controlplane.model.commands import BeginAudit, Command, encode_entry, seal
from support.invariants import check_state


class AuditedMachine:
    """`entries` is its log; time moves one second per command."""

    def __init__(self) -> None:
        self.state = State(cluster_id="test")
        self.entries: list[bytes] = []
        self.at = 1_000_000
        self.do(BeginAudit(node="n1"), actor="audit")

    def do(
        self, command: Command, *, actor: str = "alice", origin: Origin | None = None, key: str | None = None
    ) -> Outcome:
        self.at += 1000
        number = len(self.entries) + 1
        entry = encode_entry([seal(command, id=f"c{number}", at=self.at, actor=actor, origin=origin, key=key)])
        self.entries.append(entry)
        self.state, [(_, outcome)], _ = apply_entry(self.state, entry, index=number, term=1)
        check_state(self.state)
        return outcome

    @property
    def chain(self) -> list[AuditRecord]:
        """What the state holds of it, the oldest first."""
        return [self.state.audit_at(number) for number in range(self.state.audit_first, self.state.audit_head + 1)]

    @property
    def last(self) -> AuditRecord:
        return self.state.audit_at(self.state.audit_head)
