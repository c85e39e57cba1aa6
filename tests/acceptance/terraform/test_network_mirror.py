"""`terraform init` with a cluster as the network mirror: its own TLS, plain Terraform, a lock file that holds."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.terraform.runner import Flavor, Terraform, has_path_terraform
from acceptance.terraform.steps import HEADER, apply_and_settle
from provider_shim.release import build

from controlplane.cli.dev.cluster import DevCluster

CONFIG = """\
provider_installation {{
  network_mirror {{ url = "{url}" }}
}}
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive, *_ = build(tmp_path_factory.mktemp("release"))
    return archive


@pytest.fixture
def offered(cluster: DevCluster, release: Path) -> Iterator[Path]:
    """The archive that the nodes offer, for the test to do with as it likes."""
    cluster.layout.providers.mkdir(exist_ok=True)
    yield Path(shutil.copy(release, cluster.layout.providers))
    shutil.rmtree(cluster.layout.providers)


def directory_of(cluster: DevCluster, tmp_path: Path, flavor: Flavor, node: int, lock: str = "") -> Terraform:
    """A working directory whose Terraform knows one node, as a mirror, and the cluster's authority."""
    workdir = tmp_path / f"by-{cluster.layout.plan.nodes[node].name}"
    workdir.mkdir()
    config = workdir / "terraform.rc"
    url = f"https://127.0.0.1:{cluster.layout.plan.nodes[node].http_port}/api/v2/providers/"
    config.write_text(CONFIG.format(url=url))
    environment = {
        **cluster.layout.environment,
        "TF_CLI_CONFIG_FILE": str(config),
        "SSL_CERT_FILE": str(cluster.layout.ca_file),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    tf = Terraform(flavor, workdir, environment)
    tf.write(HEADER + 'resource "flintlock_namespace" "this" {\n  name = "mirrored"\n}\n')
    if lock:
        tf.write(lock, ".terraform.lock.hcl")
    return tf


def test_init_from_any_node_gives_the_same_lock_and_a_provider_that_works(
    cluster: DevCluster, offered: Path, tmp_path: Path
) -> None:
    flavor: Flavor = "path" if has_path_terraform() else "lib"
    first = directory_of(cluster, tmp_path, flavor, 0)
    assert "Installed microscaler/flintlock" in first.init().output
    lock = (first.workdir / ".terraform.lock.hcl").read_text()
    index = cluster.client().get("/providers/registry.terraform.io/microscaler/flintlock/0.1.0.json").body
    hashes = index["archives"]["linux_amd64"]["hashes"]
    assert set(re.findall(r'"((?:h1|zh):[^"]+)"', lock)) <= set(hashes)
    assert any(each.startswith("h1:") and each in lock for each in hashes)
    apply_and_settle(first)
    # It is still the same package after it ran, and the lock holds at another node.
    first.init()
    other = directory_of(cluster, tmp_path, flavor, 1, lock)
    other.run("init", "-no-color", "-input=false", "-lockfile=readonly")
    assert (other.workdir / ".terraform.lock.hcl").read_text() == lock
    first.destroy()


def test_an_archive_that_was_tampered_with_is_refused(cluster: DevCluster, offered: Path, tmp_path: Path) -> None:
    first = directory_of(cluster, tmp_path, "lib", 0)
    first.init()
    lock = (first.workdir / ".terraform.lock.hcl").read_text()
    with zipfile.ZipFile(offered, "a") as changed:
        changed.writestr("lib/requests/extra.py", "")
    other = directory_of(cluster, tmp_path, "lib", 1, lock)
    refused = other.run("init", "-no-color", "-input=false", expect=1)
    assert "checksum" in refused.plain, refused.output
