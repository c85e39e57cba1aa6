"""A provider whose configuration is not known yet defers what it would have to ask the API for, on Terraform 1.15.

Creating something is planned without the API, and is not deferred: with the configuration known at apply, it is done in
the same run.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from acceptance.terraform.conftest import Endpoint, Work
from acceptance.terraform.runner import Flavor
from acceptance.terraform.steps import HEADER
from support.stacks import plan_stack

STACK = """
required_providers {
  flintlock = {
    source  = "microscaler/flintlock"
    version = ">= 0.0.1"
  }
  terraform = { source = "terraform.io/builtin/terraform" }
}
provider "terraform" "this" {}
provider "flintlock" "this" {
  config { endpoints = [ENDPOINT] }
}
component "first" {
  source    = "./first"
  providers = { terraform = provider.terraform.this }
}
component "second" {
  source    = "./second"
  providers = { flintlock = provider.flintlock.this }
}
"""
FIRST = (
    'resource "terraform_data" "made" { input = "https://" }\noutput "made" { value = terraform_data.made.output }\n'
)
SECOND = HEADER + 'resource "flintlock_namespace" "new" { name = "new" }\ndata "flintlock_cluster" "read" {}\n'
NEW = {"component.first.terraform_data.made", "component.second.flintlock_namespace.new"}


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_what_needs_the_api_is_deferred_until_the_provider_is_configured(
    newest: Flavor, endpoint: Endpoint, work: Work, mirror: Path, known: bool
) -> None:
    tf = work(newest, endpoint.environment, HEADER)
    address = f'"{endpoint.environment["FLINTLOCK_ENDPOINTS"]}"'
    files = {
        "main.tfcomponent.hcl": STACK.replace("ENDPOINT", address if known else "component.first.made"),
        "first/main.tf": FIRST,
        "second/main.tf": SECOND,
    }
    plan = plan_stack(tf, files, mirror.parent)
    assert plan.errors == ()
    assert plan.planned == NEW
    assert plan.deferred == (
        {} if known else {"component.second.data.flintlock_cluster.read": "PROVIDER_CONFIG_UNKNOWN"}
    )
