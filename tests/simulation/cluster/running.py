"""Running seeds, each in a child of its own: what dead processes left in memory ends with the child, and so does what a
build replaced."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from simulation.cluster.builds import Build
from simulation.cluster.profile import Profile, draw_profile
from simulation.cluster.schedule import Schedule, Trouble, draw_troubles, smaller
from simulation.cluster.world import Note, World
from simulation.raft.invariants import Violation
from simulation.tallies import Series, Tally, fingerprint_of

_MEMORY = Path("/dev/shm")
_FORK = multiprocessing.get_context("fork")


@dataclass
class Outcome:
    """What one seed did. `violation` is None when every invariant held."""

    violation: Violation | None
    steps: int
    virtual_s: float
    trace: int
    seen: Counter[str]
    recent: list[Note]


def run_seed(
    seed: int,
    hours: float,
    *,
    build: Build | None = None,
    profile: Profile | None = None,
    on_note: Callable[[Note], None] | None = None,
) -> Outcome:
    """`hours`: of faults, in virtual time. `on_note` is called in the child."""
    build, profile = build or Build(), profile or draw_profile(seed)
    troubles = draw_troubles(seed, hours, build.weights or profile.weights, profile.pace_s)
    return run_troubles(seed, troubles, build=build, profile=profile, on_note=on_note)


def run_troubles(
    seed: int,
    troubles: Sequence[Trouble],
    *,
    build: Build | None = None,
    profile: Profile | None = None,
    on_note: Callable[[Note], None] | None = None,
) -> Outcome:
    """A seed with a schedule of its own."""
    ours, theirs = _FORK.Pipe(duplex=False)
    world = build or Build(), profile or draw_profile(seed)
    with TemporaryDirectory(prefix="cluster-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as directory:
        child = _FORK.Process(target=_run, args=(seed, troubles, Path(directory), *world, on_note, theirs))
        child.start()
        theirs.close()
        try:
            outcome: Outcome = ours.recv()
        except EOFError:
            raise RuntimeError(f"seed {seed}: the simulator broke, see above") from None
        finally:
            child.join()
    return outcome


def _run(
    seed: int,
    troubles: Sequence[Trouble],
    directory: Path,
    build: Build,
    profile: Profile,
    on_note: Callable[[Note], None] | None,
    answer: Connection,
) -> None:
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), processors=[_silence])
    # When the collector runs depends on how much was allocated, and what it finds may have something to say, as an
    # asynchronous generator has; so it runs at virtual times (`World`).
    gc.disable()
    gc.freeze()
    covered = set(sys.modules)
    world = World(seed, troubles, directory, profile, build)
    if on_note is not None:
        world.on_note = on_note
    violation: Violation | None = None
    try:
        world.run()
    except Violation as error:
        violation = error
    late = sorted(name for name in set(sys.modules) - covered if name.startswith("controlplane."))
    assert not late, f"loaded by a run, and not in the fingerprint of its tallies: {late}"
    loop = world.loop
    answer.send(Outcome(violation, loop.steps, loop.now_s, world.network.trace, world.seen, list(world.recent)))
    answer.close()
    os._exit(0)


def _silence(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


def find(build: Build, seeds: int, hours: float, *, first: int = 0) -> tuple[int, Outcome] | None:
    """The first seed from `first` on that finds fault with `build`."""
    for seed in range(first, first + seeds):
        outcome = run_seed(seed, hours, build=build)
        if outcome.violation is not None:
            return seed, outcome
    return None


def shrink(seed: int, hours: float, build: Build, *, runs: int) -> tuple[Schedule, Outcome] | None:
    """A smaller schedule with which `seed` fails in the same way, and how it does; None when the seed does not fail."""
    profile = draw_profile(seed)
    drawn = draw_troubles(seed, hours, build.weights or profile.weights, profile.pace_s)
    first = last = run_troubles(seed, drawn, build=build)
    if first.violation is None:
        return None
    kind = first.violation.kind

    def fails(troubles: Sequence[Trouble]) -> bool:
        nonlocal last
        outcome = run_troubles(seed, troubles, build=build)
        if outcome.violation is None or outcome.violation.kind != kind:
            return False
        last = outcome
        return True

    # What had not begun cannot matter.
    begun = [each for each in drawn if each.at_s <= first.virtual_s]
    return Schedule(seed, build.name, smaller(begun, fails, runs=runs)), last


def run_block(first: int, count: int, *, hours: float) -> Tally:
    tally = Tally()
    began_s = time.process_time() + _of_children_s()
    for seed in range(first, first + count):
        outcome = run_seed(seed, hours)
        tally.seeds += 1
        tally.steps += outcome.steps
        tally.virtual_s += outcome.virtual_s
        tally.seen.update(outcome.seen)
        if outcome.violation is not None:
            tally.violations.append({"seed": seed, "kind": outcome.violation.kind, "what": str(outcome.violation)})
    tally.core_s = time.process_time() + _of_children_s() - began_s
    return tally


def _of_children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def series(file: Path, hours: float) -> Series:
    """Tallies in `file` of what is simulated of the product, as it is now, and of this simulator, by seeds of so many
    hours."""
    code = fingerprint_of("simulation.cluster.running")
    return Series(file, f"{code} {hours:g} h", 1, partial(run_block, hours=hours))
