"""`flintlock_gc_run`: what is due by the GC policy is collected now, and not when its turn comes.

A run does exactly what a plan showed. Here both follow each other at once; when something changed in between, the
control plane refuses the plan as stale, and another one is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from provider_shim.client import ApiError
from provider_shim.framework.call import Call
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import NUMBER, STRING, Object, SetOf
from provider_shim.framework.validate import between, each_of
from provider_shim.resources.actions.common import ApiAction, Locator
from provider_shim.resources.problems import told_to_user

TRIGGERS: Final = (
    "failed_microvm",
    "unmanaged_microvm",
    "lost_host",
    "lost_tombstone",
    "leftover",
    "quarantined_volumes",
    "finished_operation",
    "audit_records",
)
MAX_LIMIT: Final = 1000
_PLANS: Final = 5
_WHERE: Final = Locator({"only": "only", "limit": "limit"})


class GCRunAction(ApiAction):
    type_name = "flintlock_gc_run"
    schema = Schema(
        description="Collects what is due by the GC policy, as `flintctl gc run` does: what `flintctl gc plan` shows "
        "at that moment, and nothing else.",
        attributes={
            "only": Attribute(
                type=SetOf(STRING),
                optional=True,
                validators=(each_of(*TRIGGERS),),
                description=f"Only what these ask for: {', '.join(f'`{each}`' for each in TRIGGERS)}. All if unset.",
            ),
            "limit": Attribute(
                type=NUMBER,
                optional=True,
                validators=(between(1, MAX_LIMIT),),
                description="How much is collected at most; what the cluster's settings say if unset.",
            ),
        },
    )

    def invoke(self, call: Call, config: Object) -> Iterator[str]:
        only: list[str] = sorted(config["only"]) if config.get("only") else []
        query: dict[str, Any] = {"only": only}
        if config.get("limit") is not None:
            query["limit"] = config["limit"]
        with told_to_user("collect garbage", _WHERE):
            done = self._run(only, query)
        refused = [each for each in done if each["outcome"] == "refused"]
        for each in done:
            if each["outcome"] == "collected":
                yield f"{each['trigger']}: collected {_shown(each['subject'])}"
        for each in refused:
            # What stands in the way of one was not there when the plan was made: it is in the next plan as waiting.
            call.report.warn(f"{_shown(each['subject'])} was not collected", f"{each['message']}.")
        yield f"{len(done) - len(refused)} collected"

    def _run(self, only: list[str], query: dict[str, Any]) -> list[dict[str, Any]]:
        client = self._connection.client()
        for left in reversed(range(_PLANS)):
            plan = client.get("/gc/plan", query=query).body["plan"]
            try:
                return client.send("POST", "/gc/run", body={"plan": plan, "only": only}).body["results"]
            except ApiError as refusal:
                if refusal.code != "stale" or not left:
                    raise
        raise AssertionError


def _shown(subject: dict[str, Any]) -> str:
    name = "/".join(part for part in (subject["namespace"], subject["name"]) if part)
    return f"{subject['kind']} {name}" + (f" on host {subject['host']}" if subject["host"] else "")
