"""docs/benchmarks.md from the tally: ratios first, then every figure, then what differs and why. Pure text."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from bench.load import MAX_CORE
from bench.tally import Line, Tally

SECTIONS = ("writes", "batches", "reads", "stale_reads")
_TITLES = {
    "writes": "single writes",
    "batches": "batches of 100 (objects per second)",
    "reads": "linearizable reads",
    "stale_reads": "stale reads",
}
_PLACES = {"leader": "all clients at the leader", "spread": "clients spread over the three members"}
_TEXT = """\
What is the same: one machine, one run, three members on loopback with their data on one disk, fsync on, TLS to clients
and mutual TLS between members, 300 bytes per object, a name of its own for every write, one connection per client with
one request in flight, one load generator (`tests/bench/loadgen`, C, one thread) whose own use of the processor is
measured. Every answer is checked: HTTP status and refused items of a batch here, HTTP and gRPC status there.

What differs:

- **Protocol.** etcd is asked over gRPC (HTTP/2, protobuf), ours over HTTP/1.1 with JSON: the API that each has.
- **Work per request.** Ours checks a bearer token, validates a document, keeps revision, generation and timestamps,
  answers with the whole object and writes an access log line. etcd has no authentication here, and stores bytes.
- **Batches.** `POST /api/v2/apply` of 100 atomic declarations beside a transaction of 100 puts.
- **Language.** etcd is compiled and uses every core from one process. A node of ours is Python: a raft process and one
  front, each at most one core. `fronts = N` is not built; with all clients at one node, its front is the limit.
- **The private socket** of the raft process is what fronts use. Its client here is in Python and shares the machine,
  and etcd has no counterpart, so those rows are beside the ratios and not in them.
- **Failover.** Ours with shipped timeouts (heartbeat 0.1 s, election 0.5 to 1.0 s), etcd with its defaults (heartbeat
  0.1 s, election 1 to 2 s). A kill closes the leader's connections, which our followers take for a sign (ADR 0087); a
  freeze does not, so there only the timeout counts. "Through the API" a whole node is killed: parent, raft and front.
- **Restart.** Ours are nine processes of Python that start at once on this machine (parent, raft and front of three
  nodes) and six of them load the state; loading itself takes about 5 µs an object.
"""


def markdown(tally: Tally, about: Line) -> str:
    parts = [_head(tally, about), _ratios(tally)]
    parts += [text for section in SECTIONS if (text := _figures(tally, section))]
    parts += [_private(tally), _failovers(tally), _restarts(tally), "## How to read it\n\n" + _TEXT]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _head(tally: Tally, about: Line) -> str:
    machine = ", ".join(
        (
            f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB",
            f"Linux {about['kernel']}",
            f"Python {about['python']}",
            f"etcd {about['etcd']}",
        )
    )
    shown = [line for name in (*SECTIONS, "private", "restart") for line in tally.last_run(name)]
    shown += tally.lines("failover")
    runs, builds = (", ".join(sorted({line[key] for line in shown})) or "none" for key in ("run", "build"))
    load = sorted(line["load_average"] for line in shown) or [0.0]
    return f"""\
# Benchmarks beside etcd

Written by `make bench-etcd` from its own results; do not edit. Rows of one table come from one run, failovers are the
sum of all runs. Ratios are ours divided by etcd's: above 1, ours is faster.

- machine: {machine}
- runs: {runs}
- builds: {builds}
- load average of the machine at each row, the benchmark's own included: {load[0]:.1f} to {load[-1]:.1f}"""


def _by_place(lines: Sequence[Line]) -> dict[tuple[str, int], dict[str, Line]]:
    """(at, clients) to the row of each system, the newest winning."""
    found: dict[tuple[str, int], dict[str, Line]] = defaultdict(dict)
    for line in lines:
        found[line["at"], line["clients"]][line["system"]] = line
    return dict(found)


def _ratios(tally: Tally) -> str:
    rows = {section: _by_place(tally.last_run(section)) for section in SECTIONS}
    clients = sorted({count for places in rows.values() for _, count in places})
    if not clients:
        return ""
    lines = ["| ratio | " + " | ".join(f"k={count}" for count in clients) + " |", "|---" * (1 + len(clients)) + "|"]
    for section, places in rows.items():
        for at in sorted({at for at, _ in places}):
            cells = [_ratio(places.get((at, count), {})) for count in clients]
            lines.append(f"| {_TITLES[section]}, {_PLACES[at]} | " + " | ".join(cells) + " |")
    return "## Ratios of throughput, for k clients\n\n" + "\n".join(lines)


def _ratio(systems: dict[str, Line]) -> str:
    if set(systems) != {"ours", "etcd"} or not systems["etcd"]["objects_per_s"]:
        return ""
    return f"{systems['ours']['objects_per_s'] / systems['etcd']['objects_per_s']:.2f}"


def _figures(tally: Tally, section: str) -> str:
    places = _by_place(tally.last_run(section))
    if not places:
        return ""
    lines = [
        f"## {_TITLES[section].capitalize()}",
        "",
        "| clients | | ours /s | p50 / p99 ms | etcd /s | p50 / p99 ms | CPU per request, ours / etcd | notes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (at, count), systems in sorted(places.items()):
        cells = [f"{count}", at]
        for name in ("ours", "etcd"):
            row = systems.get(name)
            cells += ["", ""] if row is None else [
                f"{row['objects_per_s']:,.0f}", f"{row['p50_ms']:.1f} / {row['p99_ms']:.1f}"
            ]  # fmt: skip
        cells.append(" / ".join(_cpu(systems.get(name)) for name in ("ours", "etcd")))
        cells.append("; ".join(note for name, row in sorted(systems.items()) for note in _notes(name, row)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cpu(row: Line | None) -> str:
    return f"{row['cpu_s'] / row['asked'] * 1e6:,.0f} µs" if row and row["asked"] else "-"


def _notes(name: str, row: Line) -> list[str]:
    notes = []
    if row["failed"]:
        notes.append(f"{name}: {row['failed']} failed {row['failures']}")
    if row["loadgen_core"] > MAX_CORE:
        notes.append(f"{name}: generator at {row['loadgen_core']:.0%} of a core")
    return notes


def _private(tally: Tally) -> str:
    rows = sorted(tally.last_run("private"), key=lambda row: row["clients"])
    if not rows:
        return ""
    lines = ["## The private socket of the raft process (client in Python)", ""]
    lines += ["| clients | appends/s | p50 / p99 ms |", "|---|---|---|"]
    lines += [f"| {r['clients']} | {r['ops_per_s']:,.0f} | {r['p50_ms']:.1f} / {r['p99_ms']:.1f} |" for r in rows]
    return "\n".join(lines)


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least `q` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-q * len(ordered) // 1) - 1))]


def _failovers(tally: Tally) -> str:
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for line in tally.lines("failover"):
        groups[line["fault"], line["system"], line["through"]].append(line["took_ms"])
    if not groups:
        return ""
    lines = [
        "## Failover: from losing the leader to the first acknowledged write, ms",
        "",
        "| fault | | times | min | median | p90 | p99 | max | over 1 s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (fault, system, through), took in sorted(groups.items(), reverse=True):
        figures = [min(took), statistics.median(took), *(quantile(took, q) for q in (0.9, 0.99)), max(took)]
        cells = [fault, f"{system}, {through}", f"{len(took)}", *(f"{figure:,.0f}" for figure in figures)]
        lines.append("| " + " | ".join([*cells, f"{sum(ms > 1000 for ms in took)}"]) + " |")
    return "\n".join(lines)


def _restarts(tally: Tally) -> str:
    rows = sorted(tally.last_run("restart"), key=lambda row: row["system"])
    if not rows:
        return ""
    lines = ["## Restart of all three members, until the first acknowledged write", ""]
    lines += ["| | entries in the log | seconds |", "|---|---|---|"]
    lines += [f"| {row['system']} | {row['entries']:,} | {row['ready_s']:.2f} |" for row in rows]
    return "\n".join([*lines, "", "Snapshots of a million objects have a benchmark of their own, see measurements.md."])
