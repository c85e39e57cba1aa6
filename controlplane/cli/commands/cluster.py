"""flintctl cluster and watch: the whole cluster at a glance, and what changes."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from controlplane.cli import columns, options, output
from controlplane.cli.columns import age
from controlplane.cli.commands.failover import breaker_line
from controlplane.cli.errors import CliError, ProblemError
from controlplane.cli.options import NamespaceOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, dig, mapping, objects, text

_LOG_FIELDS = (("term", "term"), ("applied", "applied_index"), ("last", "last_index"))

app = options.new_app("The cluster itself.")


@app.command()
def status(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """Show the nodes, their roles, the log, and what runs; and what each node believes of the others.

    Contradictions between the nodes, a stopped failover and a wait after a restore are in the first lines.
    """
    cluster = options.client(ctx).get("/cluster").body
    if output.machine_readable(form):
        output.dump(cluster, form)
        return
    failover = mapping(cluster, "failover")
    if failover.get("breaker_open"):
        output.alarm(f"FAILOVER IS STOPPED: {text(failover.get('message'))}")
    if restore := mapping(cluster, "restore"):
        output.alarm(f"RESTORED: {text(restore.get('message'))}")
    for line in cluster.get("disagreements") or ():
        output.alarm(f"NODES DISAGREE: {text(line)}")
    log = mapping(cluster, "log")
    leader = text(log.get("leader"))
    output.pairs(
        [
            ("Cluster", text(cluster.get("cluster_id"))),
            ("Answered by", f"{text(cluster.get('node'))} (version {text(cluster.get('version'))})"),
            ("Leader", (leader or "none") + ("" if log.get("has_quorum") else "  (no quorum)")),
            ("Machine version", text(cluster.get("machine_version"))),
            ("Revision", text(cluster.get("revision"))),
            ("State hash", text(cluster.get("state_hash"))),
            ("Log", ", ".join(f"{name} {text(log.get(key))}" for name, key in _LOG_FIELDS)),
            *([("Backup", _backup(mapping(cluster, "backup")))] if cluster.get("backup") else []),
            ("Hosts", _counts(mapping(cluster, "hosts"))),
            (
                "Failover",
                breaker_line(
                    bool(failover.get("breaker_open")),
                    failover.get("lost"),
                    failover.get("of"),
                    mapping(failover, "override"),
                ),
            ),
            ("MicroVMs", _counts(mapping(cluster, "microvms"))),
        ]
    )
    nodes = objects(cluster, "nodes")
    print()
    output.table(
        ["NODE", "ADDRESS", "REACHABLE", "ROLE"], [_node_row(node, leader) for node in nodes], empty="No nodes."
    )
    print("\nWhat each node believes:")
    output.table(
        ["NODE", "LEADER", "TERM", "SINCE", "HEARS", "DOES NOT HEAR", "REVISION"],
        [_belief_row(node) for node in nodes],
        empty="No nodes.",
    )


def watch(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="MicroVM, Host, Namespace, ...")] = None,
    namespace: NamespaceOption = None,
    start: Annotated[int | None, typer.Option("--from", metavar="REVISION", help="First revision to show.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many events.")] = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Print every change as it happens, until Ctrl-C. With -o json, one object per line.

    \b
    Examples:
      flintctl watch --kind MicroVM -n demo
      flintctl watch -o json | jq .object.status.phase
    """
    client = options.client(ctx)
    seen, last = 0, start
    try:
        while True:
            params: dict[str, str | int] = {} if last is None else {"from": last}
            params |= {"kind": kind} if kind else {}
            params |= {"namespace": namespace} if namespace else {}
            try:
                for event in client.events("/watch", params):
                    body: Json = json.loads(event.data)
                    last = int(body.get("revision") or last or 0)
                    _print_event(event.event, body, form)
                    seen += 1
                    if limit is not None and seen >= limit:
                        return
            except ProblemError as problem:
                if problem.code == "compacted":
                    typer.echo(f"Events from revision {last} on are no longer kept; going on from now.", err=True)
                    last = None
                elif problem.code in ("no_leader", "no_majority", "too_slow"):
                    typer.echo(f"{problem.message}; trying another node.", err=True)
                    time.sleep(0.5)
                else:
                    raise
            except CliError:
                if last is None and seen == 0:
                    raise
                typer.echo("The connection was lost; trying another node.", err=True)
                time.sleep(0.5)
    except KeyboardInterrupt:
        return


def _print_event(kind: str, body: Json, form: OutputFormat) -> None:
    if form is OutputFormat.JSON:
        print(json.dumps({"event": kind, **body}, ensure_ascii=False), flush=True)
        return
    if form is OutputFormat.YAML:
        print("---")
        output.dump({"event": kind, **body}, form)
        return
    resource = mapping(body, "object")
    if body.get("kind") == "Operation":
        name = f"Operation {text(resource.get('kind'))} of {columns.target_name(mapping(resource, 'target'))}"
    else:
        name = columns.target_name(resource)
    details = [text(dig(resource, "status", "phase") or resource.get("phase"))]
    details += [f"host={host}"] if (host := dig(resource, "status", "host")) else []
    details += [f"power={power}"] if (power := dig(resource, "status", "power_state")) else []
    print(f"{text(body.get('revision')):>8}  {kind:<8}  {name}  {' '.join(filter(None, details))}".rstrip(), flush=True)


def _backup(backup: Json) -> str:
    last = text(backup.get("last_saved_at"))
    line = f"{age(last, options.now_ms())} ago at {text(backup.get('location'))}" if last else "none yet"
    if backup.get("overdue"):
        line += "  OVERDUE"
    return f"{line}\nfailed: {backup['error']}" if backup.get("error") else line


def _node_row(node: Json, leader: str) -> list[str]:
    name = text(node.get("node"))
    role = text(node.get("role")) or ("leader" if name == leader else "")
    return [name, text(node.get("address")), "yes" if node.get("reachable") else "no", role]


def _belief_row(node: Json) -> list[str]:
    name, belief = text(node.get("node")), mapping(node, "belief")
    if not belief:
        return [name, f"not asked: {text(node.get('not_asked'))}", "", "", "", "", ""]
    return [
        name,
        text(belief.get("leader")) or "none",
        text(belief.get("term")),
        f"{float(belief.get('since_s') or 0):.0f} s",
        ", ".join(belief.get("hears") or ()) or "nobody",
        ", ".join(belief.get("misses") or ()),
        text(belief.get("revision")),
    ]


def _counts(counts: Json) -> str:
    return ", ".join(f"{value} {key}" for key, value in counts.items() if value) or "none"
