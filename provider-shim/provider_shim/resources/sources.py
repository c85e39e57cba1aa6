"""Data sources: what the control plane observes. It changes by itself, so it lives here and never in a resource."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from provider_shim.client import Client, segment
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Path, attribute
from provider_shim.framework.resource import DataSource
from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import BOOL, NUMBER, STRING, ListOf, MapOf, Object, Type
from provider_shim.resources.common import LABEL_KEYS, NAME
from provider_shim.resources.connection import Connection
from provider_shim.resources.problems import told_to_user

_KINDS: dict[str, Type] = {
    "string": STRING,
    "number": NUMBER,
    "bool": BOOL,
    "strings": ListOf(STRING),
    "labels": MapOf(STRING),
    "numbers": MapOf(NUMBER),
}


def observed(kind: str, description: str) -> Attribute:
    """A computed attribute; kinds are string, number, bool, strings, labels, numbers."""
    return Attribute(type=_KINDS[kind], computed=True, description=description)


def observed_list(description: str, attributes: Mapping[str, Attribute]) -> Attribute:
    return Attribute(type=Nested("list", attributes), computed=True, description=description)


def label_filter(what: str) -> Attribute:
    return Attribute(
        type=MapOf(STRING),
        optional=True,
        validators=(LABEL_KEYS,),
        description=f"Only {what} with all of these labels.",
    )


def pick(attributes: Mapping[str, Attribute], *sources: Mapping[str, Any]) -> Object:
    """Each attribute from the first source that has it, else null."""
    return {name: next((s[name] for s in sources if s.get(name) is not None), None) for name in attributes}


class ConnectedSource(DataSource):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def client(self) -> Client:
        return self._connection.client()

    def asking(self) -> AbstractContextManager[None]:
        """What the API refuses inside is told to the user."""
        return told_to_user(f"read data source {self.type_name}", Filters())

    def items(self, path: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self.asking():
            return list(self.client.pages(path, query))


_ARGUMENTS = {
    **{name: name for name in ("namespace", "host", "kind", "name", "type", "since", "limit")},
    "label": "labels",
    "reason": "reasons",
    "from": "from_revision",
}
"""Name in a path or a query -> argument of the data source."""


class Filters:
    """Names in the path and the query of a list are names of the data source's arguments."""

    def path(self, pointer: str) -> Path:
        parts = pointer.split("/")
        name = _ARGUMENTS.get(parts[2] if parts[1] == "query" and len(parts) > 2 else parts[-1])
        return attribute(name) if name is not None else ()


def label_query(config: Object) -> dict[str, Any]:
    labels: dict[str, str] = config.get("labels") or {}
    return {"label": [f"{key}={value}" for key, value in sorted(labels.items())]} if labels else {}


class ClusterSource(ConnectedSource):
    type_name = "flintlock_cluster"
    _NODES: ClassVar = {
        "node": observed("string", "Name of the node."),
        "address": observed("string", "Address of the node."),
        "reachable": observed("bool", "Whether the answering node reaches it."),
        "role": observed("string", "`leader` or `follower`."),
    }
    _PLAIN: ClassVar = {
        "cluster_id": observed("string", "Identity of the cluster."),
        "revision": observed("number", "Revision of the state; grows with every change."),
        "state_hash": observed("string", "Hash of the state at that revision; equal on all nodes."),
        "node": observed("string", "The node that answered."),
        "version": observed("string", "Version of the control plane."),
        "hosts": observed("numbers", "Number of hosts by phase."),
        "microvms": observed("numbers", "Number of microVMs by state."),
    }
    _FAILOVER: ClassVar = {
        "breaker_open": observed("bool", "Whether so many hosts are lost that nothing is restarted elsewhere."),
        "lost": observed("number", "Hosts that are detached or fenced, and that nobody confirmed as off."),
        "of": observed("number", "Declared hosts that have ever connected."),
        "message": observed("string", "What is held, and what to do about it."),
    }
    schema = Schema(
        description="The cluster as the answering node sees it.",
        attributes={
            **_PLAIN,
            "failover": Attribute(
                type=Nested("single", _FAILOVER),
                computed=True,
                description="Whether microVMs of lost hosts are restarted elsewhere.",
            ),
            "nodes": observed_list("The nodes of the cluster.", _NODES),
        },
    )

    def read(self, call: Call, config: Object) -> Object:
        with self.asking():
            found = self.client.get("/cluster").body
        nodes = [pick(self._NODES, each) for each in found.get("nodes") or ()]
        failover = pick(self._FAILOVER, found.get("failover") or {})
        return {**pick(self._PLAIN, found), "failover": failover, "nodes": nodes}


class HostsSource(ConnectedSource):
    type_name = "flintlock_hosts"
    _HOST: ClassVar = {
        "name": observed("string", "Name of the host."),
        "uid": observed("string", "Identity of the declared host; null while it is not declared."),
        "labels": observed("labels", "Labels of the host."),
        "declared": observed("bool", "Whether a `flintlock_host` admits it."),
        "schedulable": observed("bool", "Whether new microVMs may come."),
        "phase": observed(
            "string",
            "`expected` (declared, never seen), `pending` (seen, not declared), `ready`, `suspect` (not heard for a "
            "moment), `detached` (its lease has ended), `fenced` (given up), `rejoining` (back, and not yet ready) or "
            "`deleting`.",
        ),
        "availability": observed(
            "string",
            "What it is for, whatever its phase: `open`, `cordoned`, `draining`, `drained`, `entering_maintenance` or"
            " `in_maintenance`.",
        ),
        "ready_for_reprovisioning": observed(
            "bool", "Whether its agent has looked, and nothing of the cluster is left there, nor can come."
        ),
        "reason": observed("string", "Why it is suspect, detached or fenced."),
        "confirmed_by": observed("string", "The operator who confirmed that it is off."),
        "connected_to": observed("string", "Node that its agent is connected to."),
        "last_seen_at": observed(
            "string", "When its agent was last heard; while it is heard, since when its session stands."
        ),
        "driver": observed("string", "Driver it uses by default."),
        "drivers": observed("strings", "Drivers it offers."),
        "simulated": observed("bool", "Whether its microVMs are simulated."),
        "agent_version": observed("string", "Version of its agent."),
        "capacity": observed("numbers", "What it has: `vcpu`, `memory_in_mb`."),
        "allocated": observed("numbers", "What its microVMs take: `vcpu`, `memory_in_mb`, `microvms`."),
    }
    schema = Schema(
        description="The hosts, declared or not, with what is observed of them.",
        attributes={
            "labels": label_filter("hosts"),
            "hosts": observed_list("The hosts, sorted by name.", _HOST),
        },
    )

    def read(self, call: Call, config: Object) -> Object:
        found = self.items("/hosts", label_query(config))
        return {"labels": config.get("labels"), "hosts": sorted(map(self._host, found), key=lambda host: host["name"])}

    def _host(self, stored: dict[str, Any]) -> Object:
        spec: dict[str, Any] = stored.get("spec") or {}
        host = pick(self._HOST, stored, stored.get("status") or {}, spec)
        host["declared"] = stored.get("declared", stored.get("spec") is not None)
        return host


class MicroVMsSource(ConnectedSource):
    type_name = "flintlock_microvms"
    _INTERFACE: ClassVar = {
        "host_device": observed("string", "Device on the host."),
        "mac_address": observed("string", "MAC address in the guest."),
    }
    _CONDITION: ClassVar = {
        "type": observed("string", "`Placed`, `Running`, `Ready` or `InSync`."),
        "status": observed("string", "`true`, `false` or `unknown`."),
        "reason": observed("string", "Why, as one word."),
        "message": observed("string", "Why, as a sentence."),
        "since": observed("string", "Since when."),
    }
    _PLAIN: ClassVar = {
        "name": observed("string", "Name of the microVM."),
        "namespace": observed("string", "Its namespace."),
        "uid": observed("string", "Its identity."),
        "labels": observed("labels", "Its labels."),
        "vcpu": observed("number", "Declared virtual CPUs."),
        "memory_in_mb": observed("number", "Declared memory in MB."),
        "phase": observed("string", "`pending`, `placed`, `active`, `failed` or `deleting`."),
        "power_state": observed("string", "Observed: `running`, `stopped`, `paused` or `absent`."),
        "ready": observed("bool", "Whether the guest said that it is ready."),
        "host": observed("string", "Host it is on."),
        "epoch": observed("number", "How often it was placed."),
        "driver": observed("string", "Driver that runs it."),
        "simulated": observed("bool", "Whether it is simulated."),
        "observed_at": observed("string", "When it was last observed."),
        "details": observed("labels", "What the driver says of it, such as its `pid`."),
    }
    schema = Schema(
        description="MicroVMs with what is observed of them: where they run, and how they are.",
        attributes={
            "namespace": Attribute(
                type=STRING, optional=True, validators=(NAME,), description="Only this namespace; unset means all."
            ),
            "labels": label_filter("microVMs"),
            "host": Attribute(type=STRING, optional=True, validators=(NAME,), description="Only those on this host."),
            "microvms": observed_list(
                "The microVMs, sorted by namespace and name.",
                {
                    **_PLAIN,
                    "drift": observed("string", "`in_sync`, `progressing`, `drifted`, `unmanaged` or `unreachable`."),
                    "interfaces": Attribute(
                        type=Nested("map", _INTERFACE), computed=True, description="Observed interfaces, by id."
                    ),
                    "conditions": observed_list("What holds of it, and why not.", _CONDITION),
                },
            ),
        },
    )

    def read(self, call: Call, config: Object) -> Object:
        query = label_query(config)
        if config.get("host") is not None:
            query["host"] = config["host"]
        namespace = config.get("namespace")
        path = "/microvms" if namespace is None else f"/namespaces/{segment(namespace)}/microvms"
        found = sorted(map(self._microvm, self.items(path, query)), key=lambda vm: (vm["namespace"], vm["name"]))
        return {**config, "microvms": found}

    def _microvm(self, stored: dict[str, Any]) -> Object:
        status: dict[str, Any] = stored.get("status") or {}
        interfaces: dict[str, Any] = status.get("interfaces") or {}
        drift: dict[str, Any] = status.get("drift") or {}
        # Observation before intent: `power_state` is in both.
        return {
            **pick(self._PLAIN, stored, status, stored.get("spec") or {}),
            "power_state": status.get("power_state"),
            "driver": status.get("driver"),
            "drift": drift.get("class"),
            "interfaces": {name: pick(self._INTERFACE, each) for name, each in interfaces.items()},
            "conditions": [pick(self._CONDITION, each) for each in status.get("conditions") or ()],
        }
