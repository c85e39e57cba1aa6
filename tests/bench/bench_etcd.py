"""Our log beside etcd's, through the API of each, on this machine and in this run; writes docs/benchmarks.md.

    python -m tests.bench.bench_etcd [--only SECTION ...] [--kills N] [--etcd-kills N] [--results DIR]

One system runs at a time. Results are added to DIR/results.jsonl, line by line, so that failovers of several runs add
up and a run that was ended loses nothing; the document is written again from that file after every run. Everything is
on loopback, on ports that are free, in a directory of its own that is removed, and ends with this command.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import etcd, failover, flint, load, report, restarts, throughput
from bench.tally import Tally, machine
from bench.throughput import Bench, Running, System

SECTIONS = ("writes", "batches", "reads", "private", "restart", "failover")
CLIENTS = (1, 16, 64, 256)
DOCUMENT = Path("docs/benchmarks.md")
SYSTEMS: dict[str, Running] = {"ours": flint.running, "etcd": etcd.running}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS)
    )
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS))
    parser.add_argument("--batch-clients", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row")
    parser.add_argument("--size", type=int, default=300, help="bytes of an object")
    parser.add_argument("--entries", type=int, default=restarts.ENTRIES, help="in the logs before the restart")
    parser.add_argument("--kills", type=int, default=5, help="leaders of ours to lose, by each way in")
    parser.add_argument("--etcd-kills", type=int, default=5, help="leaders of etcd to lose")
    parser.add_argument("--fault", choices=failover.FAULTS, default="kill", help="how they are lost")
    parser.add_argument("--through", nargs="+", choices=("api", "socket"), default=["api", "socket"])
    parser.add_argument("--results", type=Path, default=Path(".work/bench-etcd"))
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="what is written from the results")
    return parser.parse_args()


def main() -> None:
    options = parse()
    # An end by SIGTERM has to clean up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    program = load.build(Path(".cache/bench-etcd"))
    about = {**machine(), "etcd": etcd.version()}
    tally = Tally(options.results)
    work: dict[str, Callable[[Bench], None]] = {
        "writes": lambda bench: throughput.writes(bench, options.clients),
        "batches": lambda bench: throughput.batches(bench, options.batch_clients),
        "reads": lambda bench: throughput.reads(bench, options.clients),
        "restart": lambda bench: restarts.measure(bench, options.entries),
    }
    for section in options.only:
        if section == "private":
            throughput.private(tally, options.clients, seconds=options.seconds, size=options.size)
            continue
        if section == "failover" and "socket" in options.through and "ours" in options.systems:
            failover.through_socket(tally, fault=options.fault, count=options.kills, size=options.size)
        for name in options.systems:
            with TemporaryDirectory(prefix="bench-") as scratch, SYSTEMS[name](Path(scratch) / "c") as system:
                if section == "failover":
                    lose_leaders(system, program, tally, options)
                else:
                    work[section](Bench(system, program, tally, seconds=options.seconds, size=options.size))
    text = report.markdown(tally, about)
    options.document.write_text(text)
    print(f"\n{text}\nWritten to {options.document} from {tally.path}")


def lose_leaders(system: System, program: Path, tally: Tally, options: argparse.Namespace) -> None:
    if "api" in options.through:
        count = options.kills if system.name == "ours" else options.etcd_kills
        failover.through_api(system, program, tally, fault=options.fault, count=count, size=options.size)


if __name__ == "__main__":
    main()
