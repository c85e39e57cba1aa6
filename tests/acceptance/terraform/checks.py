"""The columns of the table: what Terraform's own plugin testing checks of a resource, each check done to all of them.

A check begins with everything applied and nothing to plan, and ends so; the first applies and the last destroys. It
compares what Terraform says of each address with what it should say, so a failure names the resources. `terraform`'s
machine-readable output is read, and the API is asked for what is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from acceptance.terraform.cases import CASES, FIRST, SECOND, Case
from acceptance.terraform.runner import Terraform
from acceptance.terraform.steps import HEADER, assert_plan_empty
from support.cluster import within

from controlplane.cli.client import Client

GONE_S = 30.0
Version = tuple[int, int]


@dataclass(frozen=True)
class Rig:
    """A working directory, and the API that its provider talks to."""

    tf: Terraform
    client: Client

    def stored(self) -> dict[str, Any]:
        """Address -> what the API has; None where it has nothing."""
        return {each.address: self.client.find(each.path) for each in CASES}

    def state(self) -> dict[str, dict[str, Any]]:
        found = self.tf.resources()
        return {each.address: found[each.address] for each in CASES}

    def identities(self) -> dict[str, Any]:
        """Address -> identity, from the state file; None where this Terraform keeps none."""
        state = json.loads((self.tf.workdir / "terraform.tfstate").read_text(encoding="utf-8"))
        found = {f"{each['type']}.{each['name']}": each["instances"][0] for each in state["resources"]}
        return {each.address: found[each.address].get("identity") for each in CASES}

    def apply(self, *arguments: str) -> dict[str, str]:
        """Address -> action, of what the plan of this apply changed; then nothing is left to plan."""
        done = self.tf.run("apply", "-json", "-auto-approve", *arguments)
        assert_plan_empty(self.tf)
        return changes(done.output)


def events(output: str, kind: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    return [each for each in lines if each.get("type") == kind]


def changes(output: str) -> dict[str, str]:
    planned = (each["change"] for each in events(output, "planned_change"))
    return {each["resource"]["addr"]: each["action"] for each in planned if each["resource"]["resource_name"] == "this"}


def of_all(action: str) -> dict[str, str]:
    return {each.address: action for each in CASES}


def uids(objects: Mapping[str, Any]) -> dict[str, str]:
    return {address: each["uid"] for address, each in objects.items()}


# -- the checks --------------------------------------------------------------------------------------------------------


def applies_and_plans_nothing_more(rig: Rig) -> None:
    assert rig.apply() == of_all("create")


def has_in_state_what_the_api_has(rig: Rig) -> None:
    state, stored = rig.state(), rig.stored()
    assert uids(state) == uids(stored)
    assert {address: each["id"] for address, each in state.items()} == {each.address: each.import_id for each in CASES}
    assert {address: each["annotations"] for address, each in stored.items()} == {
        each.address: {"note": FIRST} for each in CASES
    }
    assert {address: each["annotations"] for address, each in state.items()} == {
        each.address: {"note": FIRST} for each in CASES
    }


def refreshes_to_the_same(rig: Rig) -> None:
    before = rig.state()
    assert changes(rig.tf.run("apply", "-refresh-only", "-json", "-auto-approve").output) == {}
    assert rig.state() == before
    assert_plan_empty(rig.tf)


def is_updated_in_place(rig: Rig) -> None:
    before = uids(rig.stored())
    for note in (SECOND, FIRST):
        rig.tf.write(f'note = "{note}"\n', "terraform.tfvars")
        assert rig.apply() == of_all("update")
        stored = rig.stored()
        assert {each["annotations"]["note"] for each in stored.values()} == {note}
        assert uids(stored) == before


def is_replaced(rig: Rig) -> None:
    before = uids(rig.stored())
    assert rig.apply(*(f"-replace={each.address}" for each in CASES)) == of_all("replace")
    after = uids(rig.stored())
    assert [address for address in after if after[address] == before[address]] == []


def is_imported_by_command(rig: Rig) -> None:
    before, identities = _forgotten(rig)
    for each in CASES:
        rig.tf.import_(each.address, each.import_id)
    assert rig.state() == before
    assert rig.identities() == identities
    assert_plan_empty(rig.tf)


def is_imported_by_block(rig: Rig) -> None:
    _import_by_blocks(rig, lambda case: f'id = "{case.import_id}"')


def is_imported_by_identity(rig: Rig) -> None:
    def identity(case: Case) -> str:
        return "identity = {\n" + "".join(f'{key} = "{value}"\n' for key, value in case.identity.items()) + "}"

    assert rig.identities() == {each.address: each.identity for each in CASES}
    _import_by_blocks(rig, identity)


def is_found_by_query_and_adopted(rig: Rig) -> None:
    """In another directory, whose state has nothing."""
    workdir = rig.tf.workdir / "query"
    workdir.mkdir()
    other = replace(rig.tf, workdir=workdir)
    other.write(HEADER)
    lists = "".join(
        f'list "{each.type_name}" "all" {{\nprovider = flintlock\ninclude_resource = true\n}}\n' for each in CASES
    )
    other.write(lists, "find.tfquery.hcl")
    told = events(other.run("query", "-json").output, "list_resource_found")
    listed = [each["list_resource_found"] for each in told]
    found = {(each["resource_type"], each["display_name"]): each for each in listed}
    # Neither what the group made nor the agent that nobody declared.
    kinds = ("flintlock_microvm", "flintlock_host")
    assert sorted(each for each in found if each[0] in kinds) == [
        ("flintlock_host", "h1"),
        ("flintlock_host", "h3"),
        ("flintlock_microvm", "needed/this"),
    ]
    ours = {each.address: found[each.type_name, each.import_id] for each in CASES}
    assert {address: each["identity"] for address, each in ours.items()} == {
        each.address: each.identity for each in CASES
    }
    assert {address: each["resource_object"] for address, each in ours.items()} == rig.state()
    other.run("query", "-no-color", "-generate-config-out=adopted.tf")
    planned = other.run("plan", "-json")
    (summary,) = events(planned.output, "change_summary")
    counts = {name: count for name, count in summary["changes"].items() if count and name != "operation"}
    assert counts == {"import": len(found)}


def is_planned_anew_when_it_disappears(rig: Rig) -> None:
    for each in CASES:
        rig.client.request("DELETE", each.path)
    within(GONE_S, lambda: not any(rig.stored().values()), "all of them are gone")
    assert rig.apply() == of_all("create")


def is_destroyed_and_leaves_nothing(rig: Rig) -> None:
    rig.tf.destroy()
    assert rig.tf.resources() == {}
    assert rig.stored() == dict.fromkeys(of_all(""), None)


# -- their parts -------------------------------------------------------------------------------------------------------


def _forgotten(rig: Rig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values and identities that were in the state, which has none of the resources now."""
    before = rig.state(), rig.identities()
    rig.tf.run("state", "rm", *of_all(""))
    return before


def _import_by_blocks(rig: Rig, named: Callable[[Case], str]) -> None:
    before, identities = _forgotten(rig)
    blocks = "".join(f"import {{\nto = {each.address}\n{named(each)}\n}}\n" for each in CASES)
    rig.tf.write(blocks, "import.tf")
    assert changes(rig.tf.run("apply", "-json", "-auto-approve").output) == of_all("import")
    (rig.tf.workdir / "import.tf").unlink()
    assert rig.state() == before
    assert rig.identities() == identities
    assert_plan_empty(rig.tf)


# -- the columns -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """`of_plugin_testing`: what it is called where Terraform's own plugin testing describes it."""

    of_plugin_testing: str
    run: Callable[[Rig], None]
    since: Version = (1, 11)
    """The first Terraform that can do it."""


CHECKS = (
    Check("Config: plan and apply, then plans with and without refresh are empty", applies_and_plans_nothing_more),
    Check("ConfigStateChecks", has_in_state_what_the_api_has),
    Check("RefreshState", refreshes_to_the_same),
    Check("ConfigPlanChecks: update", is_updated_in_place),
    Check("ConfigPlanChecks: replace", is_replaced),
    Check("ImportState: ImportCommandWithID", is_imported_by_command),
    Check("ImportState: ImportBlockWithID", is_imported_by_block),
    Check("ImportState: ImportBlockWithResourceIdentity", is_imported_by_identity, since=(1, 12)),
    Check("Query", is_found_by_query_and_adopted, since=(1, 14)),
    Check("ExpectNonEmptyPlan: disappears", is_planned_anew_when_it_disappears),
    Check("CheckDestroy", is_destroyed_and_leaves_nothing),
)


def checks_for(version: Version) -> Iterable[Check]:
    return (each for each in CHECKS if each.since <= version)
