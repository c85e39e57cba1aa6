"""What the framework offers beyond what the product uses, in a real Terraform: see `support.showcase`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from acceptance.terraform.runner import Flavor, Terraform
from acceptance.terraform.steps import apply_and_settle

TESTS = Path(__file__).resolve().parents[2]
HCL = """
terraform {
  required_providers {
    showcase = { source = "example/showcase" }
  }
}

variable "secret" {
  type      = string
  ephemeral = true
  default   = "plan-secret-9f"
}

resource "showcase_thing" "a" {
  name           = "a"
  secret         = var.secret
  secret_version = VERSION
  extra          = { list = [1, "two"], flag = true }

  dynamic "rule" {
    for_each = toset([80, 443])
    content {
      port = rule.value
    }
  }
  peer {
    port = 2
  }
  peer {
    port = 1
  }
  limit "cpu" {
    value = 4
  }
}

output "has_id" {
  value = showcase_thing.a.id != null
}
output "digest" {
  value = showcase_thing.a.digest
}
"""
DATA = """
resource "terraform_data" "b" {
  input = "b"
}
"""
MOVED = """
moved {
  from = terraform_data.b
  to   = showcase_thing.b
}

resource "showcase_thing" "b" {
  name = "b"
}
"""


@pytest.fixture
def tf(newest: Flavor, tmp_path: Path) -> Terraform:
    """A working directory whose Terraform is told where the provider is (`dev_overrides`)."""
    executable = tmp_path / "bin" / "terraform-provider-showcase"
    executable.parent.mkdir()
    executable.write_text(f'#!/bin/sh\nPYTHONPATH={TESTS} exec {sys.executable} -m support.showcase "$@"\n')
    executable.chmod(0o755)
    rc = tmp_path / "terraform.rc"
    overrides = f'dev_overrides {{ "example/showcase" = "{executable.parent}" }}'
    rc.write_text(f"provider_installation {{\n  {overrides}\n  direct {{}}\n}}\n")
    workdir = tmp_path / "work"
    workdir.mkdir()
    return Terraform(newest, workdir, {"TF_CLI_CONFIG_FILE": str(rc)})


def test_blocks_dynamic_values_secrets_and_moves(tf: Terraform) -> None:
    tf.write(HCL.replace("VERSION", "1") + DATA)
    planned = tf.plan("-out=saved.plan", expect=2).plain
    assert "+ has_id = true" in planned, "an unknown id is known not to be null"
    assert "+ digest = (known after apply)" in planned
    apply_and_settle(tf)
    first = tf.outputs()["digest"]
    thing = tf.resources()["showcase_thing.a"]
    assert thing["rule"] == [{"port": 80, "protocol": "tcp"}, {"port": 443, "protocol": "tcp"}]
    assert {each["port"] for each in thing["peer"]} == {1, 2}
    assert thing["extra"] == {"list": [1, "two"], "flag": True}
    assert thing["limit"] == {"cpu": {"value": 4}}

    # The state of another type is taken over, and nothing else is planned of it. Another version of the secret comes
    # with that, and neither secret is anywhere.
    tf.write(HCL.replace("VERSION", "2").replace("plan-secret-9f", "plan-secret-7a") + MOVED)
    planned = tf.plan(expect=2).plain
    assert "terraform_data.b has moved to showcase_thing.b" in planned
    assert "0 to add, 1 to change, 0 to destroy" in planned
    apply_and_settle(tf)
    assert tf.resources()["showcase_thing.b"]["name"] == "b"
    assert tf.outputs()["digest"] != first
    written = [path for path in tf.workdir.rglob("*") if path.is_file() and path.suffix != ".tf"]
    assert {"saved.plan", "terraform.tfstate"} <= {path.name for path in written}
    assert not [path for path in written if b"plan-secret" in path.read_bytes()]

    # A rule across fields is told on a line of the block.
    tf.write(HCL.replace("secret_version = VERSION", ""))
    refused = tf.run("validate", "-no-color", expect=1).plain
    assert "A secret has no version" in refused
    assert "Nobody could tell that it changed." in refused
