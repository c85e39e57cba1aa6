"""What the log replicates, as the log sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from controlplane.manifest import StatePart


class StateView(Protocol):
    """The state as it was at one moment. Immutable, so that any thread may read it while the state goes on."""

    def header(self) -> bytes:
        """What a load needs besides the chunks; small."""
        ...

    def parts(self) -> Iterator[StatePart]:
        """What the chunks are made from, lazily and always in the same order; equal states give equal chunks."""
        ...


class StateLoader(Protocol):
    """A state being built from a snapshot, apart from the present one."""

    def add(self, chunk: bytes) -> None:
        """Take one chunk, in any order. Raises ValueError when it is none."""
        ...

    def finish(self) -> Callable[[], None]:
        """Verify the whole: digest and completeness. Raises ValueError.

        The answer, called where `apply` is called, puts the loaded state in the place of the present one at once.
        """
        ...


class ReplicatedState(Protocol):
    """What the log replicates, as the log sees it: bytes in, bytes out. Total: `apply` never raises."""

    def apply(self, index: int, term: int, entry: bytes) -> None: ...

    def view(self) -> StateView:
        """The present state; costs nothing."""
        ...

    def begin_load(self, header: bytes) -> StateLoader:
        """Raises ValueError when `header` is not one of a state like this. The loader may work in another thread."""
        ...

    def load_format_1(self, data: bytes) -> Callable[[], None]:
        """As `begin_load` to `finish`, for the single document of an old snapshot. Raises ValueError."""
        ...

    def digest(self) -> str:
        """Hash of the state, cheap to ask for."""
        ...
