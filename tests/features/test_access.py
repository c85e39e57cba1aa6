"""Steps of access.feature."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from features.conftest import Fleet
from pytest_bdd import given, parsers, scenarios, then, when
from support.cluster import within

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


@then(parsers.parse('"{name}" is refused at every node within {seconds:d} seconds'))
def _refused(fleet: Fleet, name: str, seconds: int) -> None:
    for node in range(3):
        within(
            seconds, lambda node=node: as_other(fleet, name, "vm", "list", node=node)[0] == 1, f"node {node} refuses"
        )
