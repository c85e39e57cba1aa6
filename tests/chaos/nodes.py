"""The control plane's real nodes, each in its own namespace: `linearizability.cluster` for who is not async."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from linearizability.cluster import HTTP_PORT, Build, Cluster, Node
from linearizability.network import Network

T = TypeVar("T")
_CALL_S = 60.0


class Nodes:
    def __init__(self, directory: Path, network: Network, names: Sequence[str], token: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def make() -> Cluster:
            return Cluster(directory, network, names, Build("api"), token)

        self._cluster = self._run(make())
        self._cluster.lay_out()

    @property
    def names(self) -> list[str]:
        return list(self._cluster.nodes)

    @property
    def ca_file(self) -> Path:
        return self._cluster.ca_file

    def node(self, name: str) -> Node:
        return self._cluster.nodes[name]

    def endpoint(self, name: str) -> str:
        return f"https://{self.node(name).address}:{HTTP_PORT}"

    def start(self, *names: str) -> None:
        self._run(self._cluster.start(*names))

    def end(self, *names: str, how: signal.Signals = signal.SIGKILL) -> None:
        self._run(self._cluster.end(*names, how=how))

    def freeze(self, *names: str) -> None:
        self._cluster.freeze(*names)

    def thaw(self, *names: str) -> None:
        self._cluster.thaw(*names)

    def fake_clocks(self) -> None:
        """From their next start on, wall clocks can be set by each node's `clock` file."""
        self._cluster.faked_clocks = True

    def change_settings(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Takes effect at the node's next start."""
        document = yaml.safe_load(self.node(name).settings.read_text())
        change(document)
        self.node(name).settings.write_text(yaml.safe_dump(document, sort_keys=False))

    def leader(self) -> str | None:
        return self._run(self._cluster.leader())

    def is_level(self, name: str) -> bool:
        """Whether it has applied what the leader has committed."""
        statuses = self._run(self._cluster.statuses())
        commits = [status.commit_index for status in statuses.values()]
        return name in statuses and statuses[name].applied_index >= max(commits)

    def close(self) -> None:
        self._run(self._cluster.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(_CALL_S)
