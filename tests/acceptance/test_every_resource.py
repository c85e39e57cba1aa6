"""Every resource type goes through every check of Terraform's own plugin testing, on both Terraforms.

The table is `terraform.cases` by `terraform.checks`: one configuration has all resources, so a check is a few commands
whatever their number, and the provider is kept alive meanwhile; `test_both_terraforms` uses `init` and a mirror.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.terraform.cases import CASES, FLEET
from acceptance.terraform.checks import CHECKS, Rig, Version, checks_for
from acceptance.terraform.runner import Flavor, Terraform
from provider_shim.resources.provider import FlintlockProvider
from support.cluster import assert_nothing_left
from support.kept_provider import kept_provider

from controlplane.cli.dev.cluster import DevCluster

NEWEST: Flavor = "lib"
PLUGIN_TESTING = {
    "Config",
    "ConfigPlanChecks",
    "ConfigStateChecks",
    "RefreshState",
    "ImportState",
    "Query",
    "ExpectNonEmptyPlan",
    "CheckDestroy",
}
"""What a step or a case of terraform-plugin-testing can check of a resource that works."""


@pytest.fixture
def rig(cluster: DevCluster, tmp_path: Path, flavor: Flavor) -> Iterator[Rig]:
    with kept_provider(cluster.layout.environment) as reattach:
        tf = Terraform(flavor, tmp_path, reattach)
        tf.write(FLEET)
        yield Rig(tf, cluster.client())


def version_of(tf: Terraform) -> Version:
    major, minor, *_ = json.loads(tf.run("version", "-json").output)["terraform_version"].split(".")
    return int(major), int(minor)


def test_every_resource_passes_every_check(cluster: DevCluster, rig: Rig) -> None:
    for check in checks_for(version_of(rig.tf)):
        try:
            check.run(rig)
        except AssertionError as failure:
            failure.add_note(f"check: {check.of_plugin_testing}")
            raise
    assert_nothing_left(cluster)


def test_no_resource_and_no_check_is_missing(tmp_path: Path) -> None:
    assert {each.type_name for each in CASES} == set(FlintlockProvider().resources)
    assert {each.of_plugin_testing.partition(":")[0] for each in CHECKS} == PLUGIN_TESTING
    # Nothing is left out everywhere: the newest Terraform does all of them.
    assert tuple(checks_for(version_of(Terraform(NEWEST, tmp_path, {})))) == CHECKS
