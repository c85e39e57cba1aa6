"""Chaos on real processes and real guests: `python -m tests.chaos [--short] [NAME ...]`, or `make chaos`.

Three nodes and four hosts in network namespaces of their own, real agents and QEMU guests that count aloud; each
scenario of tests/chaos/features harms them and is judged by what the guests said (see `judge`). A line for each is
added to results.jsonl in the directory; what this very build has passed already is left out, so an interrupted run goes
on where it was. With `--losses N` hosts lose their power instead, N of them, and the times are added up. Exit code 0:
all passed; 1: not; 69: this machine does not permit it, and why.
"""

# ruff: noqa: T201 - a command that prints
from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
from bench.tally import Tally
from chaos import losses
from chaos.results import IMAGES, Options, Results, summary
from chaos.witness import add_images
from linearizability.cluster import REPOSITORY
from linearizability.faults import missing_for
from linearizability.sandbox import run_inside, what_is_missing

from controlplane.ports import DriverError


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios whose names contain one of these words")
    parser.add_argument("--short", action="store_true", help="the few that CI runs")
    parser.add_argument("--again", action="store_true", help="also what this build has passed already")
    parser.add_argument("--outage-s", type=int, default=600, help="how long the control plane is gone (%(default)s)")
    parser.add_argument("--losses", type=int, default=0, metavar="N", help="measure N losses of a host instead")
    parser.add_argument("--at-once", type=int, choices=(1, 2), default=1, help="hosts lost in one moment")
    parser.add_argument("--directory", type=Path, default=Path(".work/chaos"), help="tally and evidence")
    parser.add_argument("--summary", action="store_true", help="only print what was collected so far")
    options = parser.parse_args(argv)
    directory = options.directory.resolve()
    tally = Tally(directory)
    if options.summary:
        print(summary(tally), losses.summary(tally), sep="\n")
        return 0
    if missing := [*what_is_missing(), *missing_for(["clocks"]), *_missing_for_guests(directory / IMAGES)]:
        print("chaos cannot run here:", *missing, sep="\n  ", file=sys.stderr)
        return os.EX_UNAVAILABLE
    if options.losses:
        return run_inside(lambda: losses.measure(tally, directory, options.losses, options.at_once))
    chosen = Options(tuple(options.names), options.short, options.again, options.outage_s, directory)
    return run_inside(lambda: _scenarios(tally, chosen))


def _missing_for_guests(images: Path) -> list[str]:
    if shutil.which("qemu-system-x86_64") is None:
        return ["QEMU is missing (apt-get install qemu-system-x86)"]
    if not Path("/dev/net/tun").exists():
        return ["/dev/net/tun is missing (modprobe tun)"]
    try:
        add_images(images)
    except DriverError as error:
        return [error.message]
    return []


def _scenarios(tally: Tally, options: Options) -> int:
    results = Results(tally, options)
    # This process has imported what pytest would rewrite the assertions of.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider"]
    folder = str(REPOSITORY / "tests" / "chaos")
    code = pytest.main([*quiet, "-v", "-s", "--timeout=0", folder], plugins=[results])
    print(summary(tally))
    return 1 if results.failed or code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
