"""`flintlock_host_drain` and `flintlock_host_uncordon`: a host is emptied before work on it, and opened after.

They change the mode that a `flintlock_host` leaves open when it declares none. A drain goes on in the control plane
whatever becomes of this run; the action waits for it, and fails where it cannot come to an end by itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final

from provider_shim.client import CancelledError, Client, segment
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import ProviderError, attribute, error
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import BOOL, NUMBER, Object
from provider_shim.framework.validate import between
from provider_shim.resources.actions.common import (
    ApiAction,
    Locator,
    deadline,
    named,
    timeout_attribute,
    timeout_text,
)
from provider_shim.resources.problems import told_to_user
from provider_shim.resources.turns import turns

_WHERE: Final = Locator(
    {"name": "host", "host": "host", "max_parallel": "max_parallel", "allow_data_loss": "allow_data_loss"}
)
_COUNTS: Final = {"moved": "moved", "under_way": "under way", "waiting": "waiting", "staying": "staying"}


def _act(client: Client, host: str, verb: str, query: dict[str, Any] | None = None) -> None:
    client.send(
        "POST",
        f"/hosts/{segment(host)}/actions/{verb}",
        query=query,
        headers={"Idempotency-Key": f"tf-action-{uuid.uuid4()}"},
    )


class HostDrainAction(ApiAction):
    type_name = "flintlock_host_drain"
    schema = Schema(
        description="Lets nothing new come to a host, moves what may run elsewhere, and waits until the host is empty. "
        "`flintlock_host_uncordon` ends it. A `flintlock_host` that declares a `mode` brings that back with the next "
        "apply.",
        attributes={
            "host": named("Name of the host."),
            "maintenance": Attribute(
                type=BOOL,
                optional=True,
                description="`true` also shuts down what cannot be moved, until the host is uncordoned. Otherwise what "
                "stays there fails the action.",
            ),
            "max_parallel": Attribute(
                type=NUMBER,
                optional=True,
                validators=(between(1, 100),),
                description="MicroVMs that are on their way at once; what the host declares if unset.",
            ),
            "allow_data_loss": Attribute(
                type=BOOL,
                optional=True,
                description="Also move microVMs with local volumes whose `recovery.allow_data_loss` is true, without "
                "their data; what the host declares if unset.",
            ),
            "timeout": timeout_attribute("the host is empty"),
        },
    )

    def invoke(self, call: Call, config: Object) -> Iterator[str]:
        host: str = config["host"]
        mode = "maintenance" if config.get("maintenance") else "drain"
        query: dict[str, Any] = {}
        if config.get("max_parallel") is not None:
            query["max_parallel"] = config["max_parallel"]
        if config.get("allow_data_loss") is not None:
            query["allow_data_loss"] = str(config["allow_data_loss"]).lower()
        end = deadline(config)
        with told_to_user(f"empty host {host}", _WHERE):
            _act(self._connection.client(), host, mode, query)
            found: dict[str, Any] = {}
            told = ""
            try:
                for _ in turns(end, call.cancel):
                    found = self._look(host, mode)
                    if (now := _progress(found)) != told:
                        told = now
                        yield f"host {host}: {now}"
                    if found["evacuation"]["done_at"]:
                        return
                    if mode == "drain" and _is_stuck(found):
                        break
            except CancelledError as problem:
                raise error(
                    f"Interrupted while host {host} is emptied",
                    f"It goes on: {told}. `flintctl host uncordon {host}` ends it.",
                ) from problem
        raise _not_empty(found, host, mode, timeout_text(config))

    def _look(self, host: str, mode: str) -> dict[str, Any]:
        found: dict[str, Any] = self._connection.client().get(f"/hosts/{segment(host)}/evacuation").body
        if found["evacuation"] is None or found["evacuation"]["mode"] != mode:
            raise error(
                f"Host {host} is not emptied any more",
                f"Its {mode} was ended by somebody else: `flintctl host show {host}`.",
                attribute("host"),
            )
        return found


class HostUncordonAction(ApiAction):
    type_name = "flintlock_host_uncordon"
    schema = Schema(
        description="Lets microVMs come to a host again, which ends a drain or a maintenance. What was shut down there "
        "starts; what has left stays where it is.",
        attributes={"host": named("Name of the host.")},
    )

    def invoke(self, call: Call, config: Object) -> Iterator[str]:
        host: str = config["host"]
        with told_to_user(f"uncordon host {host}", _WHERE):
            _act(self._connection.client(), host, "uncordon")
        yield f"host {host}: microVMs may come again"


def _progress(found: dict[str, Any]) -> str:
    evacuation = found["evacuation"]
    return ", ".join(f"{evacuation[key]} {words}" for key, words in _COUNTS.items())


def _is_stuck(found: dict[str, Any]) -> bool:
    """What is left stays, and nothing else is on its way."""
    evacuation = found["evacuation"]
    return bool(evacuation["staying"]) and not (evacuation["waiting"] or evacuation["under_way"])


def _not_empty(found: dict[str, Any], host: str, mode: str, after: str) -> ProviderError:
    left = [each for each in found["left"] if each["host"] == host]
    shown = "; ".join(f"{each['namespace']}/{each['name']}: {each['reason'] or each['stand']}" for each in left[:5])
    more = f"; and {len(left) - 5} more" if len(left) > 5 else ""
    if mode == "drain" and _is_stuck(found):
        summary, then = f"Host {host} cannot be drained", "With maintenance = true they are shut down there."
    else:
        summary, then = f"Host {host} is not empty after {after}", "The control plane goes on with it."
    return error(summary, f"Left there: {shown or 'nothing that is known'}{more}. {then}", attribute("host"))
