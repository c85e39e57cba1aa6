"""Getting a snapshot from the cluster into a store.

A snapshot is held by one node. When that node goes away, another one is asked for a snapshot of its own: the chunks
that have been stored are named by their content and count for it as well, so little is sent twice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from controlplane.backup.repository import Progress, Repository, Saved
from controlplane.cli.client import Client
from controlplane.cli.errors import CliError, ProblemError
from controlplane.cli.raft_report import size
from controlplane.cli.values import Json, text
from controlplane.manifest import MAX_MANIFEST_BYTES, ChunkRef

RETRY_S = 1.0
_RETRIED = ("snapshot_gone", "no_leader", "no_majority", "too_many_snapshots", "not_ready", "internal")


class Source:
    """One node's snapshot, held there while this is open."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.taken: Json = client.request("POST", "/snapshots").body
        self._path = f"/snapshots/{self.taken['id']}"
        self.manifest = client.download("GET", f"{self._path}/manifest", limit=MAX_MANIFEST_BYTES)

    def fetch(self, refs: Sequence[ChunkRef]) -> list[bytes]:
        wanted = sum(ref.size for ref in refs)
        names = [ref.name for ref in refs]
        data = memoryview(
            self._client.download("POST", f"{self._path}/chunks", body={"names": names}, limit=wanted + 1)
        )
        if len(data) != wanted:
            raise CliError(f"{text(self.taken.get('node'))} answered {len(data)} bytes for chunks of {wanted}")
        found: list[bytes] = []
        at = 0
        for ref in refs:
            found.append(bytes(data[at : at + ref.size]))
            at += ref.size
        return found

    def release(self) -> None:
        with suppress(CliError):
            self._client.request("DELETE", self._path)


def save(
    clients: Sequence[Client],
    repository: Repository,
    *,
    now_s: Callable[[], float],
    timeout_s: float,
    progress: Callable[[Progress], None],
    say: Callable[[str], None],
) -> tuple[Saved, Json]:
    """Save a snapshot of one of the nodes that `clients` (one each) ask. Gives also what its taking answered.

    Raises CliError, StoreError.
    """
    give_up = time.monotonic() + timeout_s
    turn = 0
    while True:
        source: Source | None = None
        client = clients[turn % len(clients)]
        try:
            source = Source(client)
            saved = repository.save(source.manifest, source.fetch, now_s=now_s(), progress=progress)
        except CliError as error:
            if isinstance(error, ProblemError) and error.code not in _RETRIED:
                raise
            turn += 1
            if time.monotonic() > give_up or (source is None and turn >= 2 * len(clients)):
                raise
            say(f"{error.message}; going on with another snapshot")
            time.sleep(RETRY_S if turn % len(clients) == 0 else 0.0)
        else:
            return saved, source.taken
        finally:
            if source is not None:
                source.release()


class Meter:
    """Progress on a terminal: one line that moves."""

    def __init__(self) -> None:
        self._shown = False

    def __call__(self, progress: Progress) -> None:
        if sys.stderr.isatty():
            share = 100 * progress.done_bytes // progress.size if progress.size else 100
            line = f"{size(progress.done_bytes)} of {size(progress.size)} ({share} %)"
            print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr)
            self._shown = False
