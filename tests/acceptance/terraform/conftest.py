"""Where acceptance tests of the provider run: which Terraform, which control plane.

By default the control plane is the in-memory one. With FLINTLOCK_ACCEPTANCE_ENDPOINTS (and _TOKEN, _CA_FILE) set, tests
that need no injected fault run against that one instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from acceptance.terraform.fake_api import FakeApi
from acceptance.terraform.runner import Flavor, Terraform
from provider_shim.client import Client, ClientSettings

Work = Callable[..., Terraform]


@dataclass(frozen=True)
class Endpoint:
    """A control plane to test against: what the provider is told, and a client of our own."""

    environment: dict[str, str]
    client: Client


@pytest.fixture
def fake_api(tmp_path: Path) -> Iterator[FakeApi]:
    with FakeApi(tmp_path / "api") as api:
        yield api


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    real = os.environ.get("FLINTLOCK_ACCEPTANCE_ENDPOINTS")
    if real:
        environment = {"FLINTLOCK_ENDPOINTS": real}
        for name in ("TOKEN", "CA_FILE"):
            environment[f"FLINTLOCK_{name}"] = os.environ[f"FLINTLOCK_ACCEPTANCE_{name}"]
    else:
        api: FakeApi = request.getfixturevalue("fake_api")
        environment = api.environment
    settings = ClientSettings(
        endpoints=tuple(environment["FLINTLOCK_ENDPOINTS"].split(",")),
        token=environment["FLINTLOCK_TOKEN"],
        ca_file=environment["FLINTLOCK_CA_FILE"],
        retry_s=10,
    )
    return Endpoint(environment, Client(settings, threading.Event()))


@pytest.fixture
def work(tmp_path: Path, mirror: Path) -> Work:
    """`work(flavor, environment, hcl)`: an initialised working directory."""

    def make(flavor: Flavor, environment: dict[str, str], hcl: str) -> Terraform:
        directory = tmp_path / "work"
        directory.mkdir()
        tf = Terraform(flavor, directory, {**environment, "TF_CLI_CONFIG_FILE": str(mirror)})
        tf.write(hcl)
        tf.init()
        return tf

    return make
