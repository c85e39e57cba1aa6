"""Waiting for a guest by long poll, with truthful progress in the log.

The API holds each request for a few seconds at most, so that an interrupted Terraform ends soon. A wait ends when
the API says that the target holds, when the microVM failed for good, or at the deadline: then the conditions say why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from provider_shim.client import Client
from provider_shim.log import log

POLL_S = 5.0

Outcome = Literal["done", "failed", "timeout"]


@dataclass(frozen=True, slots=True)
class Waited:
    outcome: Outcome
    stored: Mapping[str, Any]


def wait_for(client: Client, path: str, target: str, generation: int, deadline: float) -> Waited:
    """Until `target` holds for the generation; `deadline` is a `time.monotonic()` instant.

    Raises what the client raises, ApiError 404 included: it was deleted meanwhile.
    """
    told = ""
    while True:
        slice_s = max(min(POLL_S, deadline - time.monotonic()), 0.0)
        query = {"wait_for": target, "wait_s": f"{slice_s:.1f}", "generation": generation}
        answer = client.get(path, query=query, deadline=deadline, wait_s=slice_s)
        outcome = answer.headers.get("Flintlock-Wait", "timeout")
        if outcome in ("done", "failed"):
            return Waited(outcome, answer.body)
        progress = why_not(answer.body)
        if progress != told:
            log("info", f"waiting for {path} to be {target}: {progress}")
            told = progress
        if time.monotonic() >= deadline:
            return Waited("timeout", answer.body)


def why_not(stored: Mapping[str, Any]) -> str:
    """What keeps a microVM from being as declared: its conditions that do not hold, else its phase."""
    status: dict[str, Any] = stored.get("status") or {}
    reasons = [
        f"{each['type']}: {each.get('message') or each.get('reason') or 'not yet'}"
        + (f" ({each['reason']})" if each.get("message") and each.get("reason") else "")
        for each in status.get("conditions") or ()
        if each.get("status") != "true"
    ]
    state = status.get("power_state") or status.get("phase") or "unknown"
    where = f" on host {status['host']}" if status.get("host") else ""
    return f"{state}{where}" + (f"; {'; '.join(reasons)}" if reasons else "")
