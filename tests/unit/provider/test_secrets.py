"""Sensitive metadata in Terraform's hands, against the real API: kept while it is as declared, else shown changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from provider_shim.framework import engine
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Report, show_path
from provider_shim.framework.plan import changed
from provider_shim.framework.types import UNKNOWN, Object, Value
from provider_shim.resources.connection import Connection
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.microvm.secrets import CHANGED
from unit.api.rig import SPEC, TOKEN, Rig, served

SECRET = "correct-horse"


class Bench:
    """One microVM of a configuration; private state is kept from call to call, as Terraform does."""

    def __init__(self, api: Rig, ca_file: Path) -> None:
        self.api = api
        cancel = threading.Event()
        environment = {"FLINTLOCK_ENDPOINTS": api.url("//"), "FLINTLOCK_TOKEN": TOKEN}
        connection = Connection(cancel, {**environment, "FLINTLOCK_CA_FILE": str(ca_file)})
        report = Report()
        connection.configure({}, report)
        assert report.items == []
        self.resource = MicroVMResource(connection)
        self.cancel = cancel
        self.private: dict[str, Any] = {}

    def config(
        self,
        secrets: dict[str, str] | None,
        written: dict[str, str] | None = None,
        version: int | None = None,
        **more: Value,
    ) -> Object:
        kernel = {"image": "demo/kernel:6.1", "filename": None, "cmdline": None, "add_network_config": None}
        nothing: Object = dict.fromkeys((*self.resource.schema.attributes, *self.resource.schema.blocks))
        given: Object = {"name": "web", "namespace": "demo", "vcpu": 1, "memory_in_mb": 128, "kernel": kernel}
        return {
            **nothing,
            **given,
            "wait_for": "none",
            "sensitive_metadata": secrets,
            "sensitive_metadata_wo": written,
            "sensitive_metadata_wo_version": version,
            **more,
        }

    def apply(self, prior: Object | None, config: Object) -> Object:
        call = self.call(config)
        planned = engine.plan(self.resource, call, prior, config).planned
        assert not any(value in repr(planned) for value in (config["sensitive_metadata_wo"] or {}).values())
        state = engine.apply(self.resource, call, prior, planned)
        assert state is not None, call.report.items
        assert [each for each in call.report.items if each.severity == "error"] == []
        self.private = call.private
        return state

    def call(self, config: Object) -> Call:
        return Call(cancel=self.cancel, private=self.private, config=config)

    def plans(self, prior: Object, config: Object) -> list[str]:
        """What would change."""
        planned = engine.plan(self.resource, self.call(config), prior, config).planned
        assert planned is not None
        return changed(self.resource.schema, prior, planned)

    def refused(self, config: Object) -> list[tuple[str, str]]:
        """What is wrong with it, and where."""
        report = Report()
        engine.validate(self.resource, config, report)
        return [(each.summary, show_path(each.path)) for each in report.items]

    def read(self, state: Object) -> Object:
        call = Call(cancel=self.cancel, private=self.private)
        found = engine.read(self.resource, call, state)
        assert found is not None
        self.private = call.private
        return found


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Path]]:
    directory = tmp_path_factory.mktemp("api")
    with served(directory) as made:
        yield made, directory / "ca" / "ca.crt"


@pytest.fixture
def bench(rig: tuple[Rig, Path]) -> Bench:
    rig[0].reset()
    rig[0].with_host()
    return Bench(*rig)


def test_what_is_as_it_was_declared_stays_as_it_is_written(bench: Bench) -> None:
    state = bench.apply(None, bench.config({"user-data": SECRET}))
    assert state["sensitive_metadata"] == {"user-data": SECRET}
    assert bench.read(state) == state
    assert bench.apply(state, bench.config({"user-data": SECRET})) == state
    assert bench.api.vm().meta.generation == 1
    changed = bench.apply(state, bench.config({"user-data": "another"}))
    assert bench.read(changed)["sensitive_metadata"] == {"user-data": "another"}
    assert bench.api.vm().meta.generation == 2
    assert bench.apply(changed, bench.config(None))["sensitive_metadata"] is None
    assert bench.api.vm().sealed == {}


def test_what_was_changed_elsewhere_shows_and_is_declared_again(bench: Bench) -> None:
    state = bench.apply(None, bench.config({"user-data": SECRET}))
    other = {"spec": SPEC, "sensitive_metadata": {"user-data": "another", "vendor-data": "more"}}
    assert bench.api.put("/namespaces/demo/microvms/web", other).status_code == 200
    seen = bench.read(state)
    assert seen["sensitive_metadata"] == {"user-data": CHANGED, "vendor-data": CHANGED}
    assert bench.read(seen) == seen, "until it is declared again"
    mended = bench.apply(seen, bench.config({"user-data": SECRET}))
    assert bench.read(mended) == state


def test_nothing_that_follows_from_a_secret_is_sent_but_the_secret(bench: Bench) -> None:
    """The key of a create would be a digest that anybody could try guesses on."""
    planned = bench.config({"user-data": SECRET})
    body = bench.resource.body(bench.call(planned), None, planned)
    bare = bench.resource.body(bench.call(planned), None, bench.config(None))
    assert body["sensitive_metadata"] == {"user-data": SECRET}
    assert bench.resource._create_key(planned, body) == bench.resource._create_key(planned, bare)


# -- write-only -------------------------------------------------------------------------------------------------------

VERSION = "sensitive_metadata_wo_version"


def test_what_is_write_only_is_in_no_state_and_declared_by_its_version(bench: Bench) -> None:
    state = bench.apply(None, bench.config(None, {"user-data": SECRET}, 1))
    assert SECRET not in repr((state, bench.private))
    assert (state["sensitive_metadata"], state["sensitive_metadata_wo"], state[VERSION]) == (None, None, 1)
    first = bench.api.vm()
    assert set(first.sealed) == {"user-data"}
    assert bench.read(state) == state

    another = {"user-data": "another", "vendor-data": "more"}
    assert bench.plans(state, bench.config(None, another, 1)) == [], "nobody can tell, and nobody is to"
    state = bench.apply(state, bench.config(None, another, 1, vcpu=2))
    assert bench.api.vm().sealed == first.sealed, "another attribute changes, the secret does not"
    assert bench.api.vm().spec.vcpu == 2
    assert bench.read(state) == state

    state = bench.apply(state, bench.config(None, another, 2, vcpu=2))
    assert set(bench.api.vm().sealed) == set(another)
    assert bench.api.vm().sealed["user-data"] != first.sealed["user-data"]
    assert bench.read(state) == state
    assert bench.apply(state, bench.config(None, vcpu=2))[VERSION] is None
    assert bench.api.vm().sealed == {}


def test_what_is_write_only_and_changed_elsewhere_is_planned_and_declared_again(bench: Bench) -> None:
    config = bench.config(None, {"user-data": SECRET}, 1)
    state = bench.apply(None, config)
    digests = bench.api.vm().spec.sensitive_metadata
    other = {"spec": SPEC, "sensitive_metadata": {"user-data": "another"}}
    assert bench.api.put("/namespaces/demo/microvms/web", other).status_code == 200
    seen = bench.read(state)
    assert seen[VERSION] is None
    assert bench.read(seen) == seen, "until it is declared again"
    assert bench.plans(seen, config) == ["sensitive_metadata", VERSION]
    mended = bench.apply(seen, config)
    assert mended == state
    assert bench.api.vm().spec.sensitive_metadata == digests

    assert bench.api.put("/namespaces/demo/microvms/web", {"spec": SPEC}).status_code == 200
    assert bench.plans(bench.read(mended), config) == [VERSION], "taken away elsewhere"


def test_a_secret_moves_between_state_and_write_only(bench: Bench) -> None:
    state = bench.apply(None, bench.config({"user-data": SECRET}))
    written = bench.config(None, {"user-data": SECRET}, 7)
    moved = bench.apply(state, written)
    assert SECRET not in repr(moved)
    assert bench.api.vm().meta.generation == 1, "it is the same secret"
    assert bench.read(moved) == moved
    assert bench.apply(moved, bench.config({"user-data": SECRET})) == state


def test_what_is_imported_is_declared_with_what_is_written(bench: Bench) -> None:
    config = bench.config(None, {"user-data": SECRET}, 1)
    state = bench.apply(None, config)
    bench.private = {}
    imported = bench.read(bench.resource.imported({"namespace": "demo", "name": "web"}))
    assert (imported["sensitive_metadata"], imported[VERSION]) == ({"user-data": CHANGED}, None)
    assert bench.apply(imported, config) == state
    assert bench.api.vm().meta.generation == 1


@pytest.mark.parametrize(
    ("secrets", "written", "version", "wrong"),
    [
        (None, {"a": "b"}, None, [("sensitive_metadata_wo has no version", "sensitive_metadata_wo")]),
        (None, None, 1, [("A version of nothing", VERSION)]),
        ({"a": "b"}, {"c": "d"}, 1, [("Sensitive metadata twice", "sensitive_metadata_wo")]),
        (None, {"a b": "c"}, 1, [('Invalid sensitive_metadata_wo["a b"]', 'sensitive_metadata_wo["a b"]')]),
        (None, {"a": "b"}, -1, [(f"Invalid {VERSION}", VERSION)]),
        (None, UNKNOWN, 1, []),
        (None, {"a": UNKNOWN}, UNKNOWN, []),
        (None, {"a": "b"}, 1, []),
    ],
)
def test_what_does_not_go_together_is_refused_on_its_line(
    bench: Bench, secrets: Any, written: Any, version: Any, wrong: list[tuple[str, str]]
) -> None:
    assert bench.refused(bench.config(secrets, written, version)) == wrong


def test_what_the_api_refuses_is_told_of_the_attribute_that_was_written(bench: Bench) -> None:
    config = bench.config(None, {"user-data": SECRET * 6000}, 1)
    call = bench.call(config)
    planned = engine.plan(bench.resource, bench.call(config), None, config).planned
    assert engine.apply(bench.resource, call, None, planned) is None
    (told,) = call.report.items
    assert show_path(told.path) == 'sensitive_metadata_wo["user-data"]'
    assert SECRET not in repr(told)


def test_a_value_that_comes_out_as_null_is_an_error_of_the_apply(bench: Bench) -> None:
    planned = engine.plan(bench.resource, bench.call({}), None, bench.config(None, UNKNOWN, 1)).planned
    call = bench.call(bench.config(None, None, 1))
    assert engine.apply(bench.resource, call, None, planned) is None
    assert [show_path(each.path) for each in call.report.items] == ["sensitive_metadata_wo"]
    assert bench.api.replica.state.microvm("demo", "web") is None


def test_a_create_that_was_interrupted_and_has_other_secrets_by_now_says_how_to_go_on(bench: Bench) -> None:
    """As when they come from an ephemeral resource, which makes others at every run."""
    made = bench.apply(None, bench.config(None, {"user-data": SECRET}, 1))
    bench.private = {}
    config = bench.config(None, {"user-data": "another"}, 1)
    call = bench.call(config)
    planned = engine.plan(bench.resource, bench.call(config), None, config).planned
    assert engine.apply(bench.resource, call, None, planned) is None
    (told,) = call.report.items
    assert told.summary == "microVM demo/web exists already"
    assert "terraform import flintlock_microvm.NAME demo/web" in told.detail
    imported = bench.read(bench.resource.imported({"namespace": "demo", "name": "web"}))
    assert bench.apply(imported, config) == made
