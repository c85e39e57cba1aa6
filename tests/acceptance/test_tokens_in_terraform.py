"""Credentials in Terraform, on both of them: a token file, and a token of one run that is written nowhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from acceptance.terraform.runner import Flavor, Terraform
from support.cluster import items

from controlplane.cli.dev.cluster import DevCluster

HCL = """
terraform {
  required_providers {
    flintlock = { source = "microscaler/flintlock" }
  }
}

provider "flintlock" {}

ephemeral "flintlock_api_token" "run" {
  user        = "ci"
  groups      = ["makers"]
  verbs       = ["read", "declare", "delete"]
  namespaces  = ["*"]
  ttl         = "10m"
  description = "of this run"
}

provider "flintlock" {
  alias = "narrow"
  token = ephemeral.flintlock_api_token.run.secret
}

resource "flintlock_namespace" "made" {
  provider = flintlock.narrow
  name     = "made-by-a-token"
}
"""


def test_a_token_of_one_run_does_its_work_and_is_gone(
    cluster: DevCluster, mirror: Path, tmp_path: Path, flavor: Flavor
) -> None:
    client = cluster.client()
    spec = {"role": "admin", "subjects": [{"kind": "group", "name": "makers"}]}
    client.request("PUT", "/rolebindings/makers", body={"spec": spec})
    environment = dict(cluster.layout.environment)
    file = tmp_path / "token"
    file.write_text(environment.pop("FLINTLOCK_TOKEN") + "\n")
    workdir = tmp_path / "work"
    workdir.mkdir()
    tf = Terraform(
        flavor, workdir, {**environment, "FLINTLOCK_TOKEN_FILE": str(file), "TF_CLI_CONFIG_FILE": str(mirror)}
    )
    try:
        tf.write(HCL)
        tf.init()
        tf.plan("-out=saved.plan", expect=2)
        assert items(client, "/api-tokens") == [], "the plan's token ended with it"
        tf.run("apply", "-no-color", "saved.plan")
        assert [each["name"] for each in items(client, "/namespaces")] == ["made-by-a-token"]
        assert items(client, "/api-tokens") == []
        written = [path for path in workdir.rglob("*") if path.is_file() and ".terraform" not in path.parts]
        assert {"saved.plan", "terraform.tfstate"} <= {path.name for path in written}
        assert not [path for path in written if b"flk_" in path.read_bytes()]
        tf.write(HCL.replace('"read", "declare", "delete"', '"read"'))
        refused = tf.run("apply", "-no-color", "-auto-approve", "-replace=flintlock_namespace.made", expect=1)
        assert "may not delete Namespace made-by-a-token" in refused.plain
        # Terraform closes nothing in a run that fails: what it leaves ends by itself.
        (left,) = items(client, "/api-tokens")
        assert datetime.fromisoformat(left["expires_at"]) < datetime.now(UTC) + timedelta(minutes=10)
        tf.write(HCL)
        tf.destroy()
    finally:
        client.request("DELETE", "/rolebindings/makers")
        for each in items(client, "/api-tokens"):
            client.request("DELETE", f"/api-tokens/{each['name']}")
