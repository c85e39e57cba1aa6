"""What the decision of access costs beside the work that it stands in front of.

    python -m tests.bench.bench_access [--bindings 200] [--rounds 20000]

One caller among many bindings asks whether it may declare a microVM; beside it, the machine applies such a declaration
of a microVM that is there and changes nothing, which is the least that a write costs besides the log. The figure is the
ratio of the two: it hardly depends on the machine. Compiling what a caller may do happens once per change of roles and
bindings, and is shown apart.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import sys
import timeit
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.builders import declare_microvm, declare_namespace

from controlplane.decide import access
from controlplane.decide.access import Question
from controlplane.machine.apply import apply
from controlplane.machine.state import State
from controlplane.model.access import AccessKind, AccessSubject, AccessSubjectKind, RoleBindingSpec, Verb
from controlplane.model.commands import Command, DeclareRoleBinding, Envelope, seal

REPEATS = 5


def _sealed(command: Command, number: int = 0) -> Envelope:
    return seal(command, id=f"command-{number}", at=1, actor="ci")


def _state(bindings: int) -> State:
    commands: list[Command] = [declare_namespace("demo"), declare_microvm("web", namespace="demo")]
    for number in range(bindings):
        spec = RoleBindingSpec(
            role="operator",
            subjects=[
                AccessSubject(kind=AccessSubjectKind.TOKEN, name="ci" if number % 20 == 0 else f"other-{number}")
            ],
            namespaces=["demo" if number == 0 else f"namespace-{number}"],
        )
        commands.append(DeclareRoleBinding(name=f"b{number}", uid=f"b{number}", spec=spec))
    state = State(cluster_id="bench")
    for number, command in enumerate(commands):
        state, _, _ = apply(state, _sealed(command, number), index=number, term=1)
    return state


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bindings", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20_000)
    asked = parser.parse_args()
    state = _state(asked.bindings)
    caller = access.of_token("ci")
    grants = access.grants(state, caller)
    write = _sealed(declare_microvm("web", namespace="demo"))

    def decide() -> None:
        question = Question(verb=Verb.DECLARE, kind=AccessKind.MICROVM, namespace="demo", name="web", labels={})
        assert grants.covers(question) is not None

    def best(work: object, rounds: int) -> float:
        return min(timeit.repeat(work, number=rounds, repeat=REPEATS)) / rounds * 1e6  # pyright: ignore[reportArgumentType]

    decided_us = best(decide, asked.rounds)
    applied_us = best(lambda: apply(state, write, index=1, term=1), asked.rounds // 10)
    compiled_us = best(lambda: access.grants(state, caller), max(1, asked.rounds // 100))
    print(f"decision {decided_us:.2f} us, apply {applied_us:.2f} us: ratio {decided_us / applied_us:.3f}")
    print(f"compiling what one caller may do, of {asked.bindings} bindings: {compiled_us:.0f} us, once per change")
    return 0


if __name__ == "__main__":
    sys.exit(main())
