"""What an operator does with a fleet beside plan and apply, in Terraform's own words."""

from __future__ import annotations

from typing import Any

import pytest
from acceptance.terraform.conftest import Endpoint, Work
from acceptance.terraform.runner import Flavor, Terraform
from acceptance.terraform.steps import HEADER, apply_and_settle, assert_plan_differs, assert_plan_empty

NAMES = ("a", "b", "c")
FIELDS = """
  namespace    = "words"
  vcpu         = 1
  memory_in_mb = 64
  kernel       = { image = "demo/kernel:6.1" }
}
"""


def fleet(resource: str = "vm", more: str = "") -> str:
    return (
        HEADER
        + f"""
resource "flintlock_microvm" "{resource}" {{
  for_each     = toset({list(NAMES)})
  name         = each.key{FIELDS}{more}
""".replace("'", '"')
    )


@pytest.fixture
def tf(newest: Flavor, endpoint: Endpoint, work: Work) -> Terraform:
    """A working directory for the namespace `words`, which nothing is in."""
    endpoint.client.send("PUT", "/namespaces/words", body={"spec": {}})
    return work(newest, endpoint.environment, fleet())


def stored(endpoint: Endpoint) -> dict[str, Any]:
    return {each["name"]: each["uid"] for each in endpoint.client.pages("/namespaces/words/microvms")}


def addresses(resource: str) -> list[str]:
    return [f'flintlock_microvm.{resource}["{name}"]' for name in NAMES]


def test_a_fleet_is_imported_renamed_and_let_go(endpoint: Endpoint, tf: Terraform) -> None:
    body = {"spec": {"vcpu": 1, "memory_in_mb": 64, "kernel": {"image": "demo/kernel:6.1"}}}
    for name in NAMES:
        endpoint.client.send("PUT", f"/namespaces/words/microvms/{name}", body=body)
    before = stored(endpoint)
    blocks = f"""
import {{
  for_each = toset({list(NAMES)})
  to       = flintlock_microvm.vm[each.key]
  id       = "words/${{each.key}}"
}}
""".replace("'", '"')
    tf.write(fleet(more=blocks))
    assert "3 to import, 0 to add, 0 to change, 0 to destroy" in assert_plan_differs(tf)
    apply_and_settle(tf)

    tf.write(fleet("web", "moved {\n  from = flintlock_microvm.vm\n  to   = flintlock_microvm.web\n}\n"))
    assert "has moved to" in tf.plan().plain
    apply_and_settle(tf)
    assert sorted(tf.resources()) == addresses("web")
    assert stored(endpoint) == before

    tf.write(HEADER + "removed {\n  from = flintlock_microvm.web\n  lifecycle {\n    destroy = false\n  }\n}\n")
    assert "will no longer be managed by Terraform" in assert_plan_differs(tf)
    tf.apply()
    assert tf.resources() == {}
    assert stored(endpoint) == before


def test_one_of_a_fleet_is_made_replaced_and_found_missing(endpoint: Endpoint, tf: Terraform) -> None:
    first, second, _ = addresses("vm")
    tf.apply(f"-target={first}")
    assert sorted(stored(endpoint)) == ["a"]
    apply_and_settle(tf)
    before = stored(endpoint)

    assert "1 added, 0 changed, 1 destroyed" in tf.apply(f"-replace={second}").plain
    assert_plan_empty(tf)
    after = stored(endpoint)
    assert {name for name in NAMES if before[name] != after[name]} == {"b"}

    endpoint.client.send("DELETE", "/namespaces/words/microvms/c")
    planned = tf.plan("-refresh-only", expect=2).plain
    assert "has been deleted" in planned
    tf.apply("-refresh-only")
    assert len(tf.resources()) == 2
    assert sorted(stored(endpoint)) == ["a", "b"]
    assert "1 to add, 0 to change, 0 to destroy" in assert_plan_differs(tf)


def test_workspaces_keep_to_themselves(endpoint: Endpoint, tf: Terraform) -> None:
    tf.write(fleet().replace("= each.key", '= "${terraform.workspace}-${each.key}"'))
    tf.apply()
    first = stored(endpoint)
    tf.run("workspace", "new", "-no-color", "other")
    assert "3 to add, 0 to change, 0 to destroy" in assert_plan_differs(tf)
    tf.apply()
    assert sorted(stored(endpoint)) == [f"{space}-{name}" for space in ("default", "other") for name in NAMES]
    tf.destroy()
    assert stored(endpoint) == first
    tf.run("workspace", "select", "-no-color", "default")
    assert_plan_empty(tf)


def test_any_parallelism_does(endpoint: Endpoint, tf: Terraform) -> None:
    tf.write(HEADER + f'resource "flintlock_microvm" "vm" {{\n  count = 30\n  name = "vm-${{count.index}}"{FIELDS}')
    tf.apply("-parallelism=50")
    for parallelism in (1, 10, 50):
        assert tf.plan(f"-parallelism={parallelism}").exit_code == 0
    assert {each["uid"] for each in tf.resources().values()} == set(stored(endpoint).values())
    tf.destroy("-parallelism=1")
    assert stored(endpoint) == {}


def test_terraforms_own_tests_clean_up(endpoint: Endpoint, tf: Terraform) -> None:
    tf.write(
        """
run "makes_three" {
  command = apply
  assert {
    condition     = length(flintlock_microvm.vm) == 3 && flintlock_microvm.vm["a"].id == "words/a"
    error_message = "not three"
  }
}
run "changes_nothing" {
  command = plan
  assert {
    condition     = flintlock_microvm.vm["a"].power_state == "running"
    error_message = "not running"
  }
}
""",
        "fleet.tftest.hcl",
    )
    assert "2 passed, 0 failed" in tf.run("test", "-no-color").plain
    assert stored(endpoint) == {}
