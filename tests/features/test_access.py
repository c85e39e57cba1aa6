"""Steps of access.feature."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from features.conftest import Fleet
from pytest_bdd import given, parsers, scenarios, then, when
from support.cluster import within

from controlplane.cli.client import Client
from controlplane.cli.errors import ProblemError
from controlplane.identity import tokens

scenarios("access.feature")

SPEC = '{"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}'
BINDING = """
resource "flintlock_role_binding" "ci" {{
  name       = "{name}"
  role       = "operator"
  namespaces = ["{namespace}"]
  subjects   = [{{ kind = "token", name = "{name}" }}]
}}
"""


@pytest.fixture(autouse=True)
def tokens_file(fleet: Fleet) -> Iterator[None]:
    """As it was: the cluster is everybody's."""
    before = fleet.cluster.layout.tokens_file.read_bytes()
    yield
    fleet.cluster.layout.tokens_file.write_bytes(before)


def as_other(fleet: Fleet, name: str, *arguments: str, node: int = 0) -> tuple[int, str]:
    """flintctl with the token of `name`, at one node."""
    endpoint = fleet.cluster.layout.environment["FLINTLOCK_ENDPOINTS"].split(",")[node]
    return fleet.flintctl("--token", fleet.before[name], "--endpoint", endpoint, *arguments)


def clients_of(fleet: Fleet, name: str) -> list[Client]:
    """With the token of `name`, one for each node."""
    environment = fleet.cluster.layout.environment
    ca_file = Path(environment["FLINTLOCK_CA_FILE"])
    endpoints = environment["FLINTLOCK_ENDPOINTS"].split(",")
    return [Client([each], fleet.before[name], ca_file, retry_for_s=0) for each in endpoints]


def declares(fleet: Fleet, name: str, namespace: str, node: int) -> tuple[int, str]:
    file = fleet.terraform.workdir / "vm.yaml"
    file.write_text(f"kind: MicroVM\nname: web\nnamespace: {namespace}\nspec: {SPEC}\n")
    return as_other(fleet, name, "apply", "-f", str(file), node=node)


@given(parsers.parse('a token "{name}" that no role was given, and the namespaces "{one}" and "{other}"'))
def _token(fleet: Fleet, name: str, one: str, other: str) -> None:
    path = fleet.cluster.layout.tokens_file
    fleet.before[name] = tokens.new_token()
    known = tokens.read_tokens(path)
    tokens.write_tokens(path, [*known, tokens.entry_for(fleet.before[name], name=name, roles=[])])
    for namespace in (one, other):
        fleet.client.request("PUT", f"/namespaces/{namespace}", body={"spec": {}})


@when(parsers.parse('the operator\'s Terraform binds operator in "{namespace}" to "{name}"'))
def _bind(fleet: Fleet, namespace: str, name: str) -> None:
    fleet.terraform.write(BINDING.format(name=name, namespace=namespace), "access.tf")
    fleet.apply()


@when("the operator deletes the binding")
def _unbind(fleet: Fleet) -> None:
    (fleet.terraform.workdir / "access.tf").unlink()
    fleet.apply()
    assert fleet.items("/rolebindings") == []


@then(parsers.parse('"{name}" cannot list microVMs: "{words}"'))
def _cannot_list(fleet: Fleet, name: str, words: str) -> None:
    code, output = as_other(fleet, name, "vm", "list")
    assert (code, words in output) == (1, True), output


@then(parsers.parse('"{name}" can declare a microVM in "{namespace}" at every node within {seconds:d} seconds'))
def _can_declare(fleet: Fleet, name: str, namespace: str, seconds: int) -> None:
    for node in range(3):
        within(seconds, lambda node=node: declares(fleet, name, namespace, node)[0] == 0, f"node {node} allows it")


@then(parsers.parse('"{name}" cannot declare one in "{namespace}": "{words}"'))
def _cannot_declare(fleet: Fleet, name: str, namespace: str, words: str) -> None:
    code, output = declares(fleet, name, namespace, 0)
    assert (code, words in output) == (1, True), output


@then(parsers.parse('flintctl tells "{name}" why not, and what would be enough'))
def _why_not(fleet: Fleet, name: str) -> None:
    assert as_other(fleet, name, "auth", "can-i", "declare", "microvm", "-n", "payments")[0] == 1
    code, output = as_other(fleet, name, "auth", "why-not", "declare", "microvm", "-n", "payments")
    assert code == 0
    assert "given by binding web-ci, holds in namespace web only" in output
    assert "a binding of the built-in role operator in namespace payments" in output


@then(parsers.parse('"{name}" is nobody at every node within {seconds:d} seconds'))
def _nobody(fleet: Fleet, name: str, seconds: int) -> None:
    def refused(client: Client) -> bool:
        try:
            client.get("/microvms")
        except ProblemError as problem:
            return problem.code == "unauthenticated"
        return False

    for client in clients_of(fleet, name):
        within(seconds, lambda client=client: refused(client) or None, "the token is not known")


@then(parsers.parse('"{name}" is refused at every node within {seconds:d} seconds'))
def _refused(fleet: Fleet, name: str, seconds: int) -> None:
    for node in range(3):
        within(
            seconds, lambda node=node: as_other(fleet, name, "vm", "list", node=node)[0] == 1, f"node {node} refuses"
        )


# -- API tokens --------------------------------------------------------------------------------------------------------


def at_node(fleet: Fleet, node: int, *arguments: str) -> str:
    """flintctl of the operator at one node, counted from 1; gives stdout."""
    endpoint = fleet.cluster.layout.environment["FLINTLOCK_ENDPOINTS"].split(",")[node - 1]
    code, output = fleet.flintctl("--endpoint", endpoint, *arguments)
    assert code == 0, output
    return output


def secret_in(output: str) -> str:
    return next(word for word in output.split() if word.startswith("flk_"))


@when(parsers.parse('the operator makes the API token "{name}" of group "{group}" at node {node:d}'))
def _make(fleet: Fleet, name: str, group: str, node: int) -> None:
    fleet.before[name] = secret_in(at_node(fleet, node, "api-token", "create", name, "--group", group, "--ttl", "1h"))


@when(parsers.parse('the operator binds viewer to the group "{group}" at node {node:d}'))
def _bind_group(fleet: Fleet, group: str, node: int) -> None:
    file = fleet.terraform.workdir / "binding.yaml"
    spec = f"{{role: viewer, subjects: [{{kind: group, name: {group}}}]}}"
    file.write_text(f"kind: RoleBinding\nname: {group}\nspec: {spec}\n")
    at_node(fleet, node, "apply", "-f", str(file))


@when(parsers.parse('the operator rotates "{name}" at node {node:d}, and the old secret stays good for {seconds:d} s'))
def _rotate(fleet: Fleet, name: str, node: int, seconds: int) -> None:
    fleet.before["old"] = fleet.before[name]
    rotated = at_node(fleet, node, "api-token", "rotate", name, "--overlap", f"{seconds}s")
    fleet.before[name] = secret_in(rotated)
    assert fleet.before[name] != fleet.before["old"]


@when(parsers.parse('the operator revokes "{name}" at node {node:d}'))
def _revoke(fleet: Fleet, name: str, node: int) -> None:
    at_node(fleet, node, "api-token", "revoke", name)


@then(parsers.parse('"{name}" can list microVMs at every node at once'))
def _can_list(fleet: Fleet, name: str) -> None:
    for client in clients_of(fleet, name):
        assert client.get("/microvms").status == 200


@then(parsers.parse('"{name}" can list microVMs at every node at once, with either secret'))
def _either(fleet: Fleet, name: str) -> None:
    _can_list(fleet, name)
    _can_list(fleet, "old")
