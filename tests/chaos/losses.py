"""How long real guests are away when their host loses its power.

Times count from the loss. `suspect`, `detached` and `fenced` are the first looks, ten a second, at which the API says
so; `running again` is the first count of a new copy, as it arrived at the recorder. Losses that were measured before
stay in the tally, and all of them are summed up.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.tally import Tally
from chaos.fleet import HOSTS, MOVERS, PATIENCE_S, Fleet
from chaos.history import Copy, copies
from chaos.hosts import Host
from chaos.results import IMAGES
from chaos.scene import Scene

SECTION = "loss"
PHASES = ("suspect", "detached", "fenced")
_LOOK_S = 0.1
_GRANTED_S = 3.0
"""After which a host that is ready certainly has a lease again."""


@dataclass
class Loss:
    """One lost host; seconds after the loss."""

    host: Host
    displaced: dict[str, str]
    """Uid to the nonce of the copy that was lost."""
    phases: dict[str, float] = field(default_factory=dict[str, float])
    back: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def over(self) -> bool:
        return "fenced" in self.phases and self.back.keys() == self.displaced.keys()

    def look(self, phase: str, began_s: float, seen: Mapping[str, Sequence[Copy]]) -> None:
        if phase in PHASES:
            self.phases.setdefault(phase, round(time.monotonic() - began_s, 2))
        for uid, nonce in self.displaced.items():
            for copy in seen.get(uid, []):
                if copy.nonce != nonce:
                    self.back.setdefault(uid, round(copy.first_s - began_s, 2))


def measure(tally: Tally, directory: Path, count: int, at_once: int) -> int:
    """Gives the exit code: 1 when a microVM had two copies or did not come back; the evidence is kept."""
    fleet = Fleet(directory / f"{time.strftime('%Y%m%dT%H%M%S')}-losses", directory / IMAGES)
    try:
        fleet.start()
        for name in MOVERS:
            fleet.declare(name, {"on_host_failure": "restart_elsewhere"})
        done = 0
        while done < count:
            fleet.await_ready_hosts(PATIENCE_S)
            fleet.await_agreement(PATIENCE_S)
            time.sleep(_GRANTED_S + random.uniform(0, 1))
            if problems := _lose(fleet, tally, min(at_once, count - done)):
                print(*problems, sep="\n")
                return 1
            done += min(at_once, count - done)
            print(f"  {done} of {count} hosts lost and back", flush=True)
    finally:
        fleet.close()
    print(summary(tally))
    return 0


def _lose(fleet: Fleet, tally: Tally, at_once: int) -> list[str]:
    """One round: lose them, wait, give them their power back. Gives what was wrong."""
    scene = Scene(fleet)
    hosts = random.sample(list(fleet.hosts.values()), at_once)
    scene.strike(*hosts)
    losses = [
        Loss(host, {copy.uid: copy.nonce for copy in scene.before.values() if copy.host == host.name}) for host in hosts
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(Host.power_off, hosts))
    while not all(loss.over for loss in losses):
        if time.monotonic() > scene.fault_s + PATIENCE_S:
            return [f"not over after {PATIENCE_S:g} s: {losses}"]
        phases, seen = fleet.phases(), copies(fleet.recorder.sightings(scene.fault_s))
        for loss in losses:
            loss.look(phases[loss.host.name], scene.fault_s, seen)
        time.sleep(_LOOK_S)
    for host in hosts:
        host.power_on()
    for loss in losses:
        tally.add(SECTION, hosts=len(HOSTS), at_once=at_once, phases=loss.phases, back=sorted(loss.back.values()))
    return scene.second_copies()


def summary(tally: Tally) -> str:
    lines = tally.lines(SECTION)
    times = {phase: [line["phases"][phase] for line in lines if phase in line["phases"]] for phase in PHASES}
    times["running again"] = [at_s for line in lines for at_s in line["back"]]
    rows = [f"losses of a host in {tally.path}: {len(lines)}; seconds after the loss"]
    rows.append(f"  {'':14} {'times':>6} {'min':>6} {'median':>7} {'p99':>6} {'max':>6}")
    for what, values in times.items():
        if values:
            values.sort()
            p50, p99 = (values[min(len(values) - 1, round(len(values) * part))] for part in (0.5, 0.99))
            rows.append(f"  {what:14} {len(values):6} {values[0]:6.1f} {p50:7.1f} {p99:6.1f} {values[-1]:6.1f}")
    return "\n".join(rows)
