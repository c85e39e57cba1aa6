"""The files of a member that founds a cluster or joins one: keys, certificates and settings, ready to be run.

Everything lies in one directory that only its owner can enter. Nothing that is there is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from controlplane.cli.errors import CliError
from controlplane.identity import storage, tokens

CA_FILE = "ca.crt"
KEYS_FILE = "sealing-keys.json"
AUTHORITY_FILE = "authority.json"
TOKENS_FILE = "tokens.json"
TOKEN_FILE = "token"  # noqa: S105 - a file's name
OF_HOST = (CA_FILE,)
OF_NODE = (CA_FILE, KEYS_FILE, AUTHORITY_FILE, TOKENS_FILE)


@dataclass(frozen=True, slots=True)
class NodeServers:
    """`HOST:PORT` of a node's three servers."""

    raft: str
    gateway: str
    http: str


@dataclass(frozen=True, slots=True)
class Peers:
    """The same of the other nodes, by name."""

    raft: Mapping[str, str]
    gateway: Mapping[str, str]
    http: Mapping[str, str]


class MemberDirectory:
    def __init__(self, directory: Path, name: str, shared: Sequence[str]) -> None:
        """`shared`: what it will hold besides the member's own. Raises CliError when something of it is there already:
        before a token is used up for nothing.
        """
        self.path = directory.resolve()
        self._name = name
        for each in (self.settings, self.key, self.certificate, *(self.path / one for one in shared)):
            if each.exists():
                raise CliError(f"{each} exists already and is not replaced", hint="choose another --dir")
        try:
            storage.private_directory(self.path)
        except OSError as error:
            raise CliError(f"--dir: {self.path}: {error.strerror}") from None

    @property
    def settings(self) -> Path:
        return self.path / f"{self._name}.yaml"

    @property
    def key(self) -> Path:
        return self.path / f"{self._name}.key"

    @property
    def certificate(self) -> Path:
        return self.path / f"{self._name}.crt"

    def secret(self, name: str, data: bytes | str) -> None:
        """Raises CliError when there is such a file."""
        self._create(self.path / name, data, 0o600)

    def public(self, name: str, data: bytes | str) -> None:
        self._create(self.path / name, data, 0o644)

    def operator_token(self) -> None:
        """A token that may do everything, and the digest of it for the nodes."""
        token = tokens.new_token()
        self.secret(TOKEN_FILE, f"{token}\n")
        tokens.write_tokens(self.path / TOKENS_FILE, [tokens.entry_for(token, name="operator", roles=["admin"])])

    def no_tokens(self) -> None:
        tokens.write_tokens(self.path / TOKENS_FILE, [])

    def node_settings(self, cluster_id: str, servers: NodeServers, peers: Peers, lives_s: tuple[int, int]) -> None:
        """`lives_s`: of hosts' and of nodes' certificates."""
        document: dict[str, object] = {
            "node": self._name,
            "cluster_id": cluster_id,
            "data_dir": "data",
            "raft": {"listen": servers.raft, "join": bool(peers.raft), "peers": dict(peers.raft)},
            "gateway": {"listen": servers.gateway, "peers": {each: peers.gateway.get(each, "") for each in peers.raft}},
            "http": {"listen": servers.http, "peers": dict(peers.http)},
            "tls": self._tls(),
            "tokens_file": TOKENS_FILE,
            "authority": {
                "keys_file": KEYS_FILE,
                "file": AUTHORITY_FILE,
                "host_life_s": lives_s[0],
                "node_life_s": lives_s[1],
            },
        }
        self._settings(document)

    def agent_settings(self, cluster_id: str, gateways: Mapping[str, str], driver: Mapping[str, str]) -> None:
        self._settings(
            {
                "host": self._name,
                "cluster_id": cluster_id,
                "state_dir": "state",
                "endpoints": dict(gateways),
                "tls": self._tls(),
                "drivers": [dict(driver)],
            }
        )

    def _tls(self) -> dict[str, str]:
        return {"ca": CA_FILE, "certificate": self.certificate.name, "key": self.key.name}

    def _settings(self, document: Mapping[str, object]) -> None:
        """Last of all: what has settings is complete."""
        self._create(self.settings, yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False), 0o600)

    def _create(self, path: Path, data: bytes | str, mode: int) -> None:
        try:
            storage.create(path, data.encode() if isinstance(data, str) else data, mode=mode)
        except FileExistsError:
            raise CliError(f"{path} exists already and is not replaced", hint="choose another --dir") from None
        except OSError as error:
            raise CliError(f"{path}: {error.strerror}") from None
