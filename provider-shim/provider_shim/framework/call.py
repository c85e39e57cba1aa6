"""What goes along with one remote call on a resource, a data source or an action.

It carries the private state, the diagnostics and the signal that the user interrupted Terraform. `Call.keep` says what
state must be saved if the operation fails after that point: a create that fails while waiting still leaves the thing in
state, tainted.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from provider_shim.framework.diagnostics import Report
from provider_shim.framework.types import Object, Value


@dataclass(slots=True)
class Call:
    cancel: threading.Event = field(default_factory=threading.Event)
    report: Report = field(default_factory=Report)
    private: dict[str, Any] = field(default_factory=dict[str, Any])
    """Kept by Terraform beside the state, invisible to the user; JSON values."""
    kept: Object | None = None
    config: Object = field(default_factory=dict[str, Value])
    """Of a plan or an apply: what was written, write-only values too; empty when something is destroyed."""

    def keep(self, state: Object) -> None:
        self.kept = state
