"""StopProvider ends what waits, at once; what writes gets its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance.terraform.fake_api import FakeApi
from provider_shim.framework.types import Object
from provider_shim.protocol.convert import read_value
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.provider import FlintlockProvider
from support.plugin import Ask, config, served, texts, wire
from unit.api.rig import eventually

SCHEMA = MicroVMResource.schema
WEB = ("MicroVM", "demo", "web")
KERNEL = {"image": "k", "filename": None, "cmdline": None, "add_network_config": None}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with FakeApi(tmp_path) as made:
        made.store.put(("Namespace", "", "demo"), {"spec": {}}, {})
        yield made


@pytest.fixture
def ask(api: FakeApi) -> Iterator[Ask]:
    provider = FlintlockProvider()
    with served(provider) as call:
        settings = {"endpoints": [api.endpoint], "token": api.token, "ca_file": str(api.files.ca)}
        given = config(provider.schema, **settings)
        assert not call("ConfigureProvider", config=wire(provider.schema, given)).diagnostics
        yield call


def create(ask: Ask) -> tuple[Object | None, list[str]]:
    written = wire(
        SCHEMA, config(SCHEMA, name="web", namespace="demo", vcpu=1, memory_in_mb=64, kernel=KERNEL, wait_for="running")
    )
    of = {"type_name": "flintlock_microvm", "prior_state": wire(SCHEMA, None), "config": written}
    planned = ask("PlanResourceChange", **of, proposed_new_state=written)
    answer = ask("ApplyResourceChange", **of, planned_state=planned.planned_state)
    return read_value(SCHEMA.codec, answer.new_state), texts(answer.diagnostics)


def test_a_wait_ends_at_once_and_what_was_declared_is_kept(api: FakeApi, ask: Ask) -> None:
    api.store.hold = True
    made: list[Any] = []
    creating = threading.Thread(target=lambda: made.append(create(ask)))
    creating.start()
    eventually(lambda: any("wait_for" in each.query for each in api.requests), "it waits")
    began = time.monotonic()
    ask("StopProvider")
    creating.join(10)
    assert time.monotonic() - began < 1, "the long poll would have taken five seconds"
    ((state, told),) = made
    assert state["uid"] == api.store.objects[WEB]["uid"]
    assert "Interrupted while waiting for microVM demo/web to be running" in told[0]


def test_a_write_that_is_under_way_gets_its_answer(api: FakeApi, ask: Ask) -> None:
    api.store.hold = True
    api.faults.delay_s = 0.6
    made: list[Any] = []
    creating = threading.Thread(target=lambda: made.append(create(ask)))
    creating.start()
    eventually(lambda: bool(api.calls("PUT")), "it is declared")
    ask("StopProvider")
    creating.join(10)
    ((state, _told),) = made
    assert state is not None
    assert state["uid"] == api.store.objects[WEB]["uid"]
