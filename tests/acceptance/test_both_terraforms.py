"""The whole provider against a real cluster, on both Terraforms: a plan after an apply is empty, whatever was applied.

`fleet.tf` uses every resource type, every data source and every attribute; a test here fails when one is added to the
provider and not to that file.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from acceptance.terraform.runner import Flavor, Terraform
from acceptance.terraform.steps import (
    apply_and_settle,
    assert_import_by_command,
    assert_plan_differs,
    assert_plan_empty,
)
from provider_shim.framework.schema import Attribute, Nested
from provider_shim.resources.provider import FlintlockProvider
from support.cluster import assert_nothing_left, assert_witnesses_agree, declared, within
from support.scanner import found_below

from controlplane.cli.dev.cluster import DevCluster

FLEET = (Path(__file__).parent / "fleet.tf").read_text(encoding="utf-8")
MICROVMS = 5
LAST: dict[str, Any] = {"root_image": "demo/root:2", "memory_in_mb": 512, "console": "hvc0"}
"""The variables that the fleet has after every kind of change."""
Fleet = Callable[[Flavor], Terraform]


@pytest.fixture
def tf(cluster: DevCluster, mirror: Path, tmp_path: Path, flavor: Flavor) -> Iterator[Terraform]:
    """The fleet, applied; destroyed afterwards, which leaves nothing."""
    made = Terraform(flavor, tmp_path, {**cluster.layout.environment, "TF_CLI_CONFIG_FILE": str(mirror)})
    made.write(FLEET)
    made.init()
    made.apply()
    yield made
    made.destroy()
    assert made.resources() == {}
    assert_nothing_left(cluster)


def change(tf: Terraform, **variables: Any) -> str:
    """Set variables and plan; the plan has changes."""
    tf.write("".join(f"{name} = {json.dumps(value)}\n" for name, value in variables.items()), "terraform.tfvars")
    return assert_plan_differs(tf)


def microvm(cluster: DevCluster, name: str) -> dict[str, Any]:
    return cluster.client().get(f"/namespaces/all/microvms/{name}").body


# -- the story of a fleet ----------------------------------------------------------------------------------------------


def test_a_fleet_from_its_first_apply_to_its_last(cluster: DevCluster, tf: Terraform) -> None:
    """One fleet for all of it: to make one and to end it takes longer than most of what is looked at."""
    nothing_is_left_to_plan_after_every_kind_of_change(cluster, tf)
    what_terraform_alone_knows_is_not_imported(cluster, tf)
    what_is_write_only_is_in_no_plan_and_no_state(cluster, tf)


def nothing_is_left_to_plan_after_every_kind_of_change(cluster: DevCluster, tf: Terraform) -> None:
    assert_plan_empty(tf)
    assert_witnesses_agree(cluster, tf, count=MICROVMS)
    assert_every_attribute_is_used(tf)
    assert_outputs(cluster, tf)
    assert {name: microvm(cluster, name)["status"]["power_state"] for name in ("full", "pinned", "frozen")} == {
        "full": "running",
        "pinned": "stopped",
        "frozen": "paused",
    }
    before = microvm(cluster, "full")

    planned = change(tf, note="second", frozen="running", drift_policy="repair")
    assert "0 to add, 10 to change, 0 to destroy" in planned, planned
    assert "restart" not in planned, planned
    apply_and_settle(tf)
    assert microvm(cluster, "full")["uid"] == before["uid"]
    assert microvm(cluster, "full")["annotations"] == {"note": "second"}
    assert microvm(cluster, "frozen")["status"]["power_state"] == "running"
    assert microvm(cluster, "spread-a")["spec"]["drift_policy"] == "repair"
    assert starts(cluster, "full") == 1

    planned = change(tf, note="second", frozen="running", drift_policy="repair", memory_in_mb=512, console="hvc0")
    assert "0 to add, 1 to change, 0 to destroy" in planned, planned
    assert "Applying will restart the guest of microVM all/full" in planned
    assert "Changing memory_in_mb, kernel stops the guest and starts it again" in planned
    apply_and_settle(tf)
    assert microvm(cluster, "full")["uid"] == before["uid"]
    within(20, lambda: starts(cluster, "full") == 2, "the guest was restarted once")

    planned = change(tf, **LAST)
    assert "1 to add, 9 to change, 1 to destroy" in planned, planned
    assert "forces replacement" in planned
    assert "microVM all/full will be replaced, and its ephemeral volumes with it" in planned
    apply_and_settle(tf)
    assert microvm(cluster, "full")["uid"] != before["uid"]
    assert microvm(cluster, "frozen")["status"]["power_state"] == "paused"
    assert_witnesses_agree(cluster, tf, count=MICROVMS)


def what_terraform_alone_knows_is_not_imported(cluster: DevCluster, tf: Terraform) -> None:
    # It is not in the API; an apply puts it into the state.
    local = frozenset({"timeouts", "wait_for"})
    assert_import_by_command(tf, 'flintlock_host.this["h1"]', "h1", ignore=local)
    assert_import_by_command(tf, "flintlock_microvm_group.full", "all/group", ignore=local)
    # Nor can anybody read a secret there: the plan declares the value that is written, and the API knows it again.
    assert_import_by_command(
        tf, "flintlock_microvm.full", "all/full", ignore=local | {"recovery", "sensitive_metadata"}
    )
    generations = {name: microvm(cluster, name)["generation"] for name in _all(cluster)}
    apply_and_settle(tf)
    assert generations == {name: microvm(cluster, name)["generation"] for name in _all(cluster)}


def what_is_write_only_is_in_no_plan_and_no_state(cluster: DevCluster, tf: Terraform) -> None:
    def declared_with(value: str, version: int) -> str:
        """The digest of it."""
        tf.env = {**tf.env, "TF_VAR_secret": value}
        planned = change(tf, **LAST, secret_version=version)
        assert "0 to add, 1 to change, 0 to destroy" in planned, planned
        tf.plan("-out=saved.tfplan", expect=2)
        tf.apply("saved.tfplan")
        # A saved plan is a ZIP archive, which hides what is in it.
        zipfile.ZipFile(tf.workdir / "saved.tfplan").extractall(tf.workdir / f"plan-{version}")
        return microvm(cluster, "pinned")["spec"]["sensitive_metadata"]["vendor-data"]

    first = declared_with("correct-horse-battery-staple", 2)
    tf.env = {**tf.env, "TF_VAR_secret": "tr0ub4dor-and-three-more"}
    assert_plan_empty(tf)
    assert declared_with("tr0ub4dor-and-three-more", 3) != first
    assert declared_with("correct-horse-battery-staple", 4) == first
    secrets = {"one": "correct-horse-battery-staple", "other": "tr0ub4dor-and-three-more"}
    assert found_below(tf.workdir, secrets) == set()
    there = found_below(tf.workdir, {"version": '"sensitive_metadata_wo_version": 4'})
    assert ("version", "terraform.tfstate") in there, "it is looked for where it would be"

    client = cluster.client()
    body = client.get("/namespaces/all/microvms/pinned").body
    spec = {name: value for name, value in body["spec"].items() if name != "sensitive_metadata"}
    other = {"spec": spec, "sensitive_metadata": {"vendor-data": "somebody else's"}}
    client.request("PUT", "/namespaces/all/microvms/pinned", body=other)
    assert "0 to add, 1 to change, 0 to destroy" in assert_plan_differs(tf)
    apply_and_settle(tf)
    assert microvm(cluster, "pinned")["spec"]["sensitive_metadata"]["vendor-data"] == first


# -- looking -----------------------------------------------------------------------------------------------------------


def _all(cluster: DevCluster) -> Iterator[str]:
    for full_name, _, _ in declared(cluster.client()):
        yield full_name.removeprefix("all/")


def starts(cluster: DevCluster, name: str) -> int:
    return cluster.client().get(f"/namespaces/all/microvms/{name}/console").text.count(" started with ")


def assert_outputs(cluster: DevCluster, tf: Terraform) -> None:
    """What the data sources say, through outputs."""
    assert tf.outputs() == {
        "cluster_id": cluster.layout.plan.cluster_id,
        "nodes": ["n1", "n2", "n3"],
        "hosts": {"h1": True},
        "placed": {"full": "h1"},
        "vms": ["frozen", "full", "pinned", "spread-a", "spread-b"],
        "uids": {key: microvm(cluster, f"spread-{key}")["uid"] for key in ("a", "b")},
        "drifted": [],
        "told": ["Placed", "Running"],
        "would_go": {"huge": False, "more": True, "pair": True},
        "functions": {
            "memory": 1536,
            "selector": {"app": "web", "tier": "front"},
            "user_data": "#cloud-config\na:\n- 1\n- 2\n",
        },
    }


def assert_every_attribute_is_used(tf: Terraform) -> None:
    """Each attribute of each resource type has a value in some resource, and every data source was read."""
    provider = FlintlockProvider()
    found = tf.show()["values"]["root_module"]["resources"]
    unused: list[str] = []
    for type_name, resource in provider.resources.items():
        instances = [each["values"] for each in found if (each["mode"], each["type"]) == ("managed", type_name)]
        assert instances, f"no {type_name}"
        unused += _unused(resource.schema.attributes, instances, type_name)
        for name, block in resource.schema.blocks.items():
            unused += _unused(block.attributes, [each[name] for each in instances if each[name]], f"{type_name}.{name}")
    assert unused == []
    assert {each["type"] for each in found if each["mode"] == "data"} == set(provider.data_sources)


def _unused(attributes: Mapping[str, Attribute], objects: list[dict[str, Any]], at: str) -> Iterator[str]:
    for name, attribute in attributes.items():
        if attribute.write_only:  # in no state; its version is
            continue
        values = [each[name] for each in objects if each.get(name) is not None]
        if not values:
            yield f"{at}.{name}"
        elif isinstance(attribute.type, Nested):
            yield from _unused(attribute.type.attributes, list(_inner(attribute.type, values)), f"{at}.{name}")


def _inner(nested: Nested, values: list[Any]) -> Iterator[dict[str, Any]]:
    for value in values:
        match nested.mode:
            case "single":
                yield value
            case "map":
                yield from value.values()
            case _:
                yield from value
