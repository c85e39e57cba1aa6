"""What a local cluster consists of and where each of its files lies. Written once to dev.json, then only read.

DIR/dev.json                  this layout
DIR/pki/ca, DIR/pki/<name>    throwaway authority and certificates
DIR/token, DIR/tokens.json    the operator's token, and its digest as the nodes read it
DIR/sealing-keys.json         the key ring of the nodes
DIR/n1.yaml, DIR/h1.yaml      settings of each process
DIR/n1/, DIR/h1/              its data
DIR/run/, DIR/logs/           who runs, and what they said
DIR/images/                   the hosts' image store (one machine, so one store)
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controlplane.cli.errors import CliError
from controlplane.identity import storage
from controlplane.model.types import Name

DEFAULT_DIRECTORY = Path(".flintlock-dev")
MAX_DIRECTORY_CHARS = 80
"""Unix sockets live below the directory, and their paths end at 107 characters."""
MAX_NODES = 7
MAX_HOSTS = 32
LOOPBACK = "127.0.0.1"
_FIRST_PORT, _LAST_PORT = 20_000, 32_000
"""Below the range from which the kernel picks ports of outgoing connections, which could take one while it is free."""

Driver = Literal["qemu", "simulated"]
Port = Annotated[int, Field(ge=1, le=65535)]


class NodePlan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    raft_port: Port
    gateway_port: Port
    http_port: Port


class HostPlan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    vcpu: int
    memory_in_mb: int


class Plan(BaseModel):
    """dev.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    cluster_id: Name
    driver: Driver
    nodes: list[NodePlan]
    hosts: list[HostPlan]


class Layout:
    """The plan and the paths that follow from it."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.directory = directory
        self.plan = plan

    @property
    def authority(self) -> Path:
        return self.directory / "pki" / "ca"

    @property
    def ca_file(self) -> Path:
        return self.authority / "ca.crt"

    @property
    def token_file(self) -> Path:
        return self.directory / "token"

    @property
    def tokens_file(self) -> Path:
        return self.directory / "tokens.json"

    @property
    def keys_file(self) -> Path:
        return self.directory / "sealing-keys.json"

    @property
    def images(self) -> Path:
        return self.directory / "images"

    @property
    def providers(self) -> Path:
        """Releases of the provider that the nodes offer; there once something is put there."""
        return self.directory / "providers"

    @property
    def mirror(self) -> Path:
        return self.directory / "terraform-mirror"

    def pki(self, name: str) -> Path:
        return self.directory / "pki" / name

    def settings(self, name: str) -> Path:
        return self.directory / f"{name}.yaml"

    def data(self, name: str) -> Path:
        return self.directory / name

    def driver_state(self, host: str) -> Path:
        """Where a host's driver keeps its microVMs."""
        return self.data(host) / self.plan.driver

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def run_file(self, name: str) -> Path:
        return self.directory / "run" / f"{name}.json"

    def endpoint(self, node: str) -> str:
        return next(f"https://{LOOPBACK}:{plan.http_port}" for plan in self.plan.nodes if plan.name == node)

    @property
    def endpoints(self) -> list[str]:
        return [self.endpoint(node.name) for node in self.plan.nodes]

    @property
    def names(self) -> list[str]:
        """Every process, nodes first."""
        return [*(node.name for node in self.plan.nodes), *(host.name for host in self.plan.hosts)]

    @property
    def environment(self) -> dict[str, str]:
        """What flintctl and Terraform need to reach this cluster."""
        return {
            "FLINTLOCK_ENDPOINTS": ",".join(self.endpoints),
            "FLINTLOCK_CA_FILE": str(self.ca_file),
            "FLINTLOCK_TOKEN": self.token_file.read_text().strip(),
            "FLINTLOCK_IMAGES": str(self.images),
        }

    def save(self) -> None:
        data = json.dumps(self.plan.model_dump(mode="json"), indent=2).encode() + b"\n"
        storage.replace(self.directory / "dev.json", data, mode=0o600)


def load(directory: Path) -> Layout | None:
    """The layout in `directory`; None when there is none. Raises CliError when it is damaged."""
    path = directory / "dev.json"
    try:
        return Layout(directory.resolve(), Plan.model_validate_json(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise CliError(f"{path}: /{where}: {first['msg']}", hint=f"remove {directory} and start again") from None


def plan(*, cluster_id: str, driver: Driver, nodes: int, hosts: int, vcpu: int, memory_in_mb: int) -> Plan:
    """A new plan, with ports that are free now."""
    ports = iter(free_ports(3 * nodes))
    return Plan(
        cluster_id=cluster_id,
        driver=driver,
        nodes=[
            NodePlan(name=f"n{i}", raft_port=next(ports), gateway_port=next(ports), http_port=next(ports))
            for i in range(1, nodes + 1)
        ],
        hosts=[HostPlan(name=f"h{i}", vcpu=vcpu, memory_in_mb=memory_in_mb) for i in range(1, hosts + 1)],
    )


def free_ports(count: int) -> Sequence[int]:
    """`count` different loopback ports that nobody listens on."""
    found: list[int] = []
    with ExitStack() as held:
        for port in _candidates():
            listener = held.enter_context(socket.socket())
            try:
                listener.bind((LOOPBACK, port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise CliError(f"fewer than {count} free ports between {_FIRST_PORT} and {_LAST_PORT} on {LOOPBACK}")


def _candidates() -> Iterator[int]:
    ports = list(range(_FIRST_PORT, _LAST_PORT))
    random.shuffle(ports)
    return iter(ports)
