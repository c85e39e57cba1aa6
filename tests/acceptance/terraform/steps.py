"""Steps that every resource's acceptance test takes, after what Terraform's own plugin testing checks.

A step is one sentence of a test: after an apply, a plan is empty with and without refresh; an imported resource
equals the one that was made; a thing deleted behind Terraform's back shows in the plan.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from acceptance.terraform.runner import Terraform

HEADER = """
terraform {
  required_providers {
    flintlock = { source = "microscaler/flintlock" }
  }
}
"""


def apply_and_settle(tf: Terraform) -> str:
    """Apply, then check that nothing is left to do: outputs included, with and without refresh. Returns the output."""
    output = tf.apply().plain
    assert_plan_empty(tf)
    return output


def assert_plan_empty(tf: Terraform) -> None:
    for arguments in (("-refresh=false",), ()):
        planned = tf.plan(*arguments)
        assert planned.exit_code == 0, f"plan {' '.join(arguments)} is not empty:\n{planned.output}"


def assert_plan_differs(tf: Terraform) -> str:
    planned = tf.plan()
    assert planned.exit_code == 2, f"expected changes:\n{planned.output}"
    return planned.plain


def assert_import_by_command(
    tf: Terraform, address: str, import_id: str, *, ignore: frozenset[str] = frozenset()
) -> None:
    """Forget the resource, import it again, and find the same attributes and an empty plan."""
    before = tf.resources()[address]
    tf.run("state", "rm", address)
    tf.import_(address, import_id)
    after = tf.resources()[address]
    different = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert set(different) <= ignore, different
    if not different:
        assert_plan_empty(tf)


def assert_generated_config(tf: Terraform, import_block: str, address: str) -> str:
    """Let Terraform write the configuration of an object that none describes; nothing differs then."""
    tf.write(import_block, "import.tf")
    generated = Path("generated.tf")
    planned = tf.plan(f"-generate-config-out={generated}")
    assert "1 to import, 0 to add, 0 to change, 0 to destroy" in planned.plain, planned.output
    tf.apply()
    assert address in tf.resources()
    text = (tf.workdir / generated).read_text(encoding="utf-8")
    assert_plan_empty(tf)
    return text


def change_state(tf: Terraform, address: str, change: Any) -> None:
    """Rewrite one resource's attributes in the state file, as an older provider would have written them."""
    path = tf.workdir / "terraform.tfstate"
    state = json.loads(path.read_text(encoding="utf-8"))
    kind, _, name = address.partition(".")
    for resource in state["resources"]:
        if (resource["type"], resource["name"]) == (kind, name):
            change(resource["instances"][0])
    state["serial"] += 1
    path.write_text(json.dumps(state), encoding="utf-8")
