"""Our provider beside Terraform's own `terraform_data`: ratios of plan, apply and a plan with nothing to do.

    python -m tests.bench.bench_terraform [--sizes 1 100 1000 5000] [--parallelism 10]

A ratio is made within one run, of two fleets of the same size, one after the other, on a cluster of three nodes and
twenty simulated hosts that shares the machine with both. Every figure is a line in `.work/terraform/results.jsonl`.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.bench_vms import BASELINE, MICROVMS, Phase, lifecycle
from bench.tally import Tally
from bench.world import NAMESPACE, World, running_world
from provider_shim.mirror import cli_config, lay_out

SIZES = (1, 100, 1000, 5000)
HOSTS = 20


def measure(tally: Tally, world: World, scratch: Path, size: int, parallelism: int) -> None:
    lay_out(scratch / "mirror", Path(sys.executable))
    config = cli_config(scratch / "mirror", scratch / "terraform.rc")
    environment = {**world.layout.environment, "TF_CLI_CONFIG_FILE": str(config)}
    phases: dict[str, list[Phase]] = {}
    for name, template in (("terraform_data", BASELINE), ("flintlock_microvm", MICROVMS)):
        print(f"{name} x {size}, -parallelism={parallelism}", flush=True)
        hcl = template.format(count=size, namespace=NAMESPACE)
        phases[name] = lifecycle(world, scratch / f"{name}-{size}", hcl, environment, parallelism)
    for base, ours in zip(phases["terraform_data"], phases["flintlock_microvm"], strict=True):
        tally.add("phase", size=size, parallelism=parallelism, **asdict(ours), base_wall_s=base.wall_s)


def show(tally: Tally) -> None:
    print(f"\n{'':30}{'terraform_data':>16}{'flintlock':>12}{'ratio':>8}{'provider CPU':>14}{'requests':>10}")
    for line in tally.last_run("phase"):
        requests = sum(each["count"] for each in line["requests"])
        print(
            f"{line['size']:>6} {line['name']:23}{line['base_wall_s']:>14.2f} s{line['wall_s']:>10.2f} s"
            f"{line['wall_s'] / line['base_wall_s']:>8.2f}{line['cpu_s']['provider']:>12.2f} s{requests:>10}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--parallelism", type=int, default=10)
    options = parser.parse_args()
    tally = Tally(Path(".work/terraform"))
    with TemporaryDirectory(prefix="bench-") as name, running_world(Path(name) / "c", hosts=HOSTS) as world:
        for size in options.sizes:
            measure(tally, world, Path(name), size, options.parallelism)
    show(tally)
    print(f"\nLoad average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
