"""kill -9 of Terraform, its provider, the API's node or the leader at random points of many applies.

    make terraform-kills RUNS=200 [FROM=N]

Each round is a line in `.work/terraform-kills/results.jsonl`, so runs add up; without FROM a run goes on where the last
one ended. What a round does follows from its number. The first round that fails ends the run with its number, and
leaves the cluster and Terraform's directory as they are.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp

from acceptance.terraform.runner import Terraform, has_path_terraform
from bench.tally import Line, Tally
from provider_shim.mirror import cli_config, lay_out

from controlplane.cli.dev import setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.progress import Progress
from kills.rounds import VICTIMS, Rounds

RESULTS = Path(".work/terraform-kills")


def run(tally: Tally, first: int, count: int) -> None:
    directory = Path(mkdtemp(prefix="kills-"))
    layout = setup.create(directory / "c", nodes=3, hosts=3, driver="simulated", say=print)
    lay_out(directory / "mirror", Path(sys.executable))
    config = cli_config(directory / "mirror", directory / "terraform.rc")
    workdir = directory / "work"
    workdir.mkdir()
    tf = Terraform(
        "path" if has_path_terraform() else "lib",
        workdir,
        {**layout.environment, "TF_CLI_CONFIG_FILE": str(config)},
        timeout_s=300,
    )
    cluster = DevCluster(layout, Progress())
    try:
        cluster.start()
        cluster.await_ready()
        rounds = Rounds(cluster, tf)
        rounds.prepare(first)
        for number in range(first, first + count):
            try:
                played = rounds.play(number)
            except BaseException:
                print(f"round {number} (FROM={number} RUNS=1 repeats it); everything is in {directory}", flush=True)
                raise
            tally.add("round", **asdict(played))
            print(f"  {played}", flush=True)
    finally:
        cluster.stop()
    cluster.purge()
    shutil.rmtree(directory)


def show(lines: list[Line]) -> None:
    killed = [each for each in lines if not each["late"]]
    by_victim = Counter(each["victim"] for each in killed)
    restored = sum(each["state"] == "backup" for each in killed)
    print(f"{len(lines)} applies, {len(killed)} with a kill in the middle, all converged; {restored} from a backup")
    print("".join(f"  {victim:10}{by_victim[victim]:6}\n" for victim in VICTIMS), end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--from", dest="first", type=int, help="the first round's number")
    options = parser.parse_args()
    tally = Tally(RESULTS)
    done = tally.lines("round")
    first = options.first if options.first is not None else 1 + max((each["number"] for each in done), default=-1)
    run(tally, first, options.runs)
    show(tally.lines("round"))


if __name__ == "__main__":
    main()
