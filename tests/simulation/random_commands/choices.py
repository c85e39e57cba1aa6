"""How a value is chosen: from small pools, as a rule; now and then one that nobody should have sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from controlplane.machine.state import State
from controlplane.model.commands import Command, Envelope, Precondition, seal
from controlplane.model.credentials import Sealed
from controlplane.model.resources import HostPhase, MicroVM

T = TypeVar("T")

NAMES = ("a", "b", "c")
STRANGE = ("", "a/b", "A", "a" * 64, "\x00", "é\n", "None")
INTEGERS = (0, 1, 2, 3, 4, 7, -1, 2**31, 2**40, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, 0.5, 1.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e308)
LABELS: tuple[dict[str, str], ...] = ({}, {"zone": "a"}, {"zone": "b"}, {"zone": "a", "app": "web"})
SEALED_KEY = Sealed(key_id="k", wrapped="AA", box="AA")


class Source(Protocol):
    """Where choices come from."""

    def pick(self, options: Sequence[T]) -> T: ...

    def chance(self, percent: int) -> bool: ...


class Choices:
    """What every maker of commands chooses by. Counts the envelopes too: no two have the same id."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.number = 0
        """Of the envelope that was sealed last. What must not come twice is named after it."""

    def pick(self, options: Sequence[T]) -> T:
        return self._source.pick(options)

    def chance(self, percent: int) -> bool:
        return self._source.chance(percent)

    def nonsense(self) -> bool:
        return self.chance(4)

    def name(self) -> str:
        return self.pick(STRANGE) if self.nonsense() else self.pick(NAMES)

    def integer(self, *usual: int) -> int:
        return self.pick(INTEGERS) if self.nonsense() or not usual else self.pick(usual)

    def share(self) -> float:
        """Part of a whole, as a rule."""
        return self.pick(FLOATS) if self.nonsense() else self.pick((0.0, 0.25, 0.5, 0.75))

    def labels(self) -> dict[str, str]:
        return self.pick(LABELS)

    def uid(self) -> str:
        return f"{self.pick(NAMES)}{self.pick(range(6))}"

    def term(self) -> int:
        return 2 if self.chance(8) else 1

    def when(self, revision: int | None) -> Precondition:
        if not self.chance(15):
            return Precondition()
        return Precondition(revision=self.pick((None, revision, 1, self.integer(0))), create_only=self.chance(30))

    def vm(self, state: State) -> MicroVM | None:
        """One of the microVMs there are."""
        return state.microvms[self.pick(sorted(state.microvms))] if state.microvms else None

    def host_in(self, state: State, *phases: HostPhase) -> str:
        """A host in one of the phases, if there is one."""
        fitting = sorted(name for name, host in state.hosts.items() if host.phase in phases)
        return self.pick(fitting) if fitting and not self.nonsense() else self.name()

    def seal(self, command: Command, *, keys: bool = True) -> Envelope:
        self.number += 1
        return seal(
            command,
            id=f"e{self.number}",
            at=self.integer(self.number * 1000, self.number * 50_000_000),
            actor=self.pick(("alice", "bob")),
            key=self.pick(("k1", "k2", "k3", "k4")) if keys and self.chance(10) else None,
        )
