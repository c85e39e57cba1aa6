"""Our provider beside Terraform's own `terraform_data`, and beside a provider in Go: ratios of plan, apply and a plan
with nothing to do.

    python -m tests.bench.bench_terraform [--sizes 1 100 1000 5000] [--parallelism 10]

A ratio is made within one run, of fleets of the same size, one after the other, on a cluster of three nodes and twenty
simulated hosts that shares the machine with all of them. `terraform_data` is a part of Terraform: it is asked by calls
of functions, where a provider is asked over gRPC. The provider in Go (`nullprovider`) has our schema and the same
configuration, and manages nothing. Every figure is a line in `.work/terraform/results.jsonl`.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import null_provider
from bench.bench_vms import BASELINE, MICROVMS, Phase, lifecycle
from bench.tally import Tally
from bench.world import NAMESPACE, World, running_world
from provider_shim.mirror import cli_config, lay_out

SIZES = (1, 100, 1000, 5000)
HOSTS = 20


@dataclass(frozen=True)
class Fleet:
    """Some number of resources, and where Terraform finds the provider of them."""

    name: str
    template: str
    environment: dict[str, str]
    managed: bool = False


def fleets(scratch: Path, environment: dict[str, str]) -> list[Fleet]:
    lay_out(scratch / "mirror", Path(sys.executable))
    schema = null_provider.lay_out(null_provider.build(Path(".cache/nullprovider")), scratch / "go-mirror")
    ours, go = (
        {"TF_CLI_CONFIG_FILE": str(cli_config(scratch / each, scratch / f"{each}.rc"))}
        for each in ("mirror", "go-mirror")
    )
    return [
        Fleet("terraform_data", BASELINE, environment | ours),
        Fleet("go", MICROVMS, environment | go | schema),
        Fleet("flintlock", MICROVMS, environment | ours, managed=True),
    ]


def measure(tally: Tally, world: World, scratch: Path, size: int, parallelism: int) -> None:
    phases: dict[str, list[Phase]] = {}
    for fleet in fleets(scratch, world.layout.environment):
        print(f"{fleet.name} x {size}, -parallelism={parallelism}", flush=True)
        hcl, directory = fleet.template.format(count=size, namespace=NAMESPACE), scratch / fleet.name
        phases[fleet.name] = lifecycle(world, directory, hcl, fleet.environment, parallelism, managed=fleet.managed)
    for data, null, own in zip(*phases.values(), strict=True):
        walls = {"base_wall_s": data.wall_s, "go_wall_s": null.wall_s, "go_cpu_s": null.cpu_s["provider"]}
        tally.add("phase", size=size, parallelism=parallelism, **asdict(own), **walls)


def show(tally: Tally) -> None:
    print(
        f"\n{'':26}{'terraform_data':>16}{'go':>11}{'flintlock':>11}{'ratio':>8}{'to go':>8}"
        f"{'provider CPU':>14}{'of go':>9}{'requests':>10}"
    )
    for line in tally.last_run("phase"):
        requests, wall_s = sum(each["count"] for each in line["requests"]), line["wall_s"]
        print(
            f"{line['size']:>6} {line['name']:19}{line['base_wall_s']:>14.2f} s{line['go_wall_s']:>9.2f} s"
            f"{wall_s:>9.2f} s"
            f"{wall_s / line['base_wall_s']:>8.2f}{wall_s / line['go_wall_s']:>8.2f}"
            f"{line['cpu_s']['provider']:>12.2f} s{line['go_cpu_s']:>7.2f} s{requests:>10}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--parallelism", type=int, default=10)
    options = parser.parse_args()
    tally = Tally(Path(".work/terraform"))
    with TemporaryDirectory(prefix="bench-") as name, running_world(Path(name) / "c", hosts=HOSTS) as world:
        for size in options.sizes:
            scratch = Path(name) / str(size)
            scratch.mkdir()
            measure(tally, world, scratch, size, options.parallelism)
    show(tally)
    print(f"\nLoad average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
