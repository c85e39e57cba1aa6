"""Lays out a local cluster's directory: authority, certificates, token, settings and images. Repeating it changes
nothing.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from controlplane.cli.dev import layout as layouts
from controlplane.cli.dev.layout import LOOPBACK, Driver, HostPlan, Layout, NodePlan
from controlplane.cli.errors import CliError
from controlplane.identity import storage, tokens
from controlplane.identity.authority import Authority
from controlplane.sealing import KeyRing

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class DriverChoice:
    driver: Driver
    reason: str
    """Why the simulated driver was taken; empty for real guests."""


def create(directory: Path, *, nodes: int, hosts: int, driver: str, say: Callable[[str], None]) -> Layout:
    """A new cluster in `directory`. `driver`: auto, qemu or simulated. Raises CliError."""
    directory = directory.resolve()
    if len(str(directory)) > layouts.MAX_DIRECTORY_CHARS:
        raise CliError(
            f"--dir: {directory} has over {layouts.MAX_DIRECTORY_CHARS} characters: too long for unix sockets below it",
            hint="choose a shorter path, such as --dir ~/flintlock",
        )
    if directory.exists() and any(directory.iterdir()):
        raise CliError(
            f"--dir: {directory} exists, is not empty, and holds no dev.json", hint="choose a directory of its own"
        )
    storage.private_directory(directory)
    # Nothing in here belongs under version control.
    storage.replace(directory / ".gitignore", b"*\n", mode=0o600)
    choice = choose_driver(driver, directory / "images", say)
    if choice.reason:
        say(f"SIMULATED: no real microVM will run here: {choice.reason}")
    plan = layouts.plan(
        cluster_id=f"dev-{secrets.token_hex(4)}",
        driver=choice.driver,
        nodes=nodes,
        hosts=hosts,
        vcpu=8,
        memory_in_mb=4096,
    )
    layout = Layout(directory, plan)
    _certificates(layout)
    _token(layout)
    _keys(layout)
    for node in plan.nodes:
        _write(layout.settings(node.name), node_settings(layout, node))
    for host in plan.hosts:
        _write(layout.settings(host.name), agent_settings(layout, host))
    layout.save()  # last: what has a dev.json is complete
    return layout


def choose_driver(wanted: str, images: Path, say: Callable[[str], None]) -> DriverChoice:
    """Build the demo images where real guests can run. Raises CliError when `qemu` was asked for and cannot be had."""
    if wanted == "simulated":
        return DriverChoice("simulated", "--driver simulated")
    problem = "qemu-system-x86_64 is not installed" if shutil.which("qemu-system-x86_64") is None else ""
    if not problem:
        from controlplane.images.demo import add_demo_images  # only needed here, and it imports the driver's side
        from controlplane.images.store import LocalImageStore
        from controlplane.ports import DriverError

        say("Building the demo images from this machine's kernel and busybox")
        try:
            add_demo_images(LocalImageStore(images))
        except DriverError as error:
            problem = error.message
    if not problem:
        return DriverChoice("qemu", "")
    if wanted == "qemu":
        hint = "apt-get install qemu-system-x86 linux-image-cloud-amd64 busybox-static kmod e2fsprogs"
        raise CliError(f"--driver qemu: {problem}", hint=hint)
    return DriverChoice("simulated", problem)


def node_settings(layout: Layout, node: NodePlan) -> dict[str, object]:
    others = [other for other in layout.plan.nodes if other.name != node.name]
    return {
        "node": node.name,
        "cluster_id": layout.plan.cluster_id,
        "data_dir": str(layout.data(node.name)),
        "raft": {
            "listen": f"{LOOPBACK}:{node.raft_port}",
            "peers": {other.name: f"{LOOPBACK}:{other.raft_port}" for other in others},
        },
        "gateway": {
            "listen": f"{LOOPBACK}:{node.gateway_port}",
            "peers": {other.name: f"{LOOPBACK}:{other.gateway_port}" for other in others},
        },
        "http": {
            "listen": f"{LOOPBACK}:{node.http_port}",
            "peers": {other.name: f"{LOOPBACK}:{other.http_port}" for other in others},
            # Whoever measures a local cluster does it with one token.
            "limits": {"identity_per_s": 0, "stranger_per_s": 0},
        },
        "tls": _tls(layout, node.name),
        "tokens_file": str(layout.tokens_file),
        "providers_dir": str(layout.providers),
        "keys_file": str(layout.keys_file),
    }


def agent_settings(layout: Layout, host: HostPlan) -> dict[str, object]:
    simulated = {"kind": "simulated", "boot_s": 0.5}
    qemu = {"kind": "qemu", "images_dir": str(layout.images)}
    return {
        "host": host.name,
        "cluster_id": layout.plan.cluster_id,
        "state_dir": str(layout.data(host.name)),
        "endpoints": {node.name: f"{LOOPBACK}:{node.gateway_port}" for node in layout.plan.nodes},
        "tls": _tls(layout, host.name),
        "drivers": [qemu if layout.plan.driver == "qemu" else simulated],
        "capacity": {"vcpu": host.vcpu, "memory_in_mb": host.memory_in_mb},
    }


def _certificates(layout: Layout) -> None:
    authority = Authority.create(layout.authority, cluster_id=layout.plan.cluster_id)
    for node in layout.plan.nodes:
        authority.issue_node(node.name, layout.pki(node.name), addresses=[LOOPBACK])
    for host in layout.plan.hosts:
        authority.issue_host(host.name, layout.pki(host.name))


def _keys(layout: Layout) -> None:
    storage.create(layout.keys_file, KeyRing.new().document().encode(), mode=0o600)


def _token(layout: Layout) -> None:
    token = tokens.new_token()
    storage.create(layout.token_file, f"{token}\n".encode(), mode=0o600)
    tokens.write_tokens(layout.tokens_file, [tokens.entry_for(token, name=OPERATOR, roles=["admin"])])


def _tls(layout: Layout, name: str) -> dict[str, str]:
    pki = layout.pki(name)
    return {"ca": str(layout.ca_file), "certificate": str(pki / f"{name}.crt"), "key": str(pki / f"{name}.key")}


def _write(path: Path, document: dict[str, object]) -> None:
    storage.replace(path, yaml.safe_dump(document, sort_keys=False).encode(), mode=0o600)
