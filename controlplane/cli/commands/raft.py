"""flintctl raft: the log that replicates everything: how it is, who its members are, and who leads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import options, output, raft_report
from controlplane.cli.client import Client, Params
from controlplane.cli.commands.resources import confirm
from controlplane.cli.context import endpoint_url
from controlplane.cli.errors import DIFFERENCES, CliError, ProblemError
from controlplane.cli.options import YesOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, mapping, objects, text
from controlplane.settings import split_address

ASK_TIMEOUT_S = 4.0
ROUND_S = 10.0
"""How long one request waits at the cluster; longer work is repeated, and says how far it is."""

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="The node's id, as in its settings and certificate.")]
AddressOption = Annotated[
    str, typer.Option("--address", metavar="HOST:PORT", help="Where the others reach its log (raft.listen).")
]
ApiOption = Annotated[
    str | None, typer.Option("--api", metavar="HOST:PORT", help="Where its API is (http.listen), for the others.")
]
GatewayOption = Annotated[
    str | None,
    typer.Option("--gateway", metavar="HOST:PORT", help="Where agents and the others dial it (gateway.listen)."),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=1, max=86_400, metavar="SECONDS", help="Give up after this long.")
]

app = options.new_app(
    """The replicated log: its health, its members, its leader.

\b
Examples:
  flintctl raft status                                        every node, side by side; exit code 2 when degraded
  flintctl raft add n4 --address 10.0.0.4:7101 \\
      --api 10.0.0.4:7301 --gateway 10.0.0.4:7201             start n4 with raft.join: true first
  flintctl raft replace n2 n4 --address 10.0.0.4:7101 ...     add n4, then remove n2
  flintctl raft remove n2                                     for good: its id is never accepted again
  flintctl raft transfer n3                                   let n3 lead, before work on the leader's machine
  flintctl raft recover --config /etc/flintlock/node.yaml     offline, when most nodes are lost for ever

\b
Members change one at a time, and only while a majority is there. A node that lost its disk does not come back under
its old id: remove it, and add it under a new one. docs/guides/operations.md has the steps.
"""
)


@app.command()
def status(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """Ask every node and put the answers side by side. Exit code: 0 healthy, 2 degraded, 1 nobody answers.

    \b
    LAG and CONTACT are as the leader sees them; hashes compare at equal indexes (HASH@INDEX).
    """
    answers, silent = ask_all(ctx)
    report = raft_report.report(answers, silent)
    if output.machine_readable(form):
        output.dump(report, form)
    else:
        leader = report["leader"]
        output.pairs(
            [
                ("Health", "ok" if report["healthy"] else "degraded"),
                ("Leader", f"{leader or 'none'} (term {text(report['term'])})"),
                ("Incarnation", text(report["incarnation"])),
            ]
        )
        print()
        rows = [raft_report.row(node, leader) for node in objects(report, "nodes")]
        output.table(raft_report.HEADERS, rows, empty="No nodes.")
        for title, key in (("Problems", "problems"), ("Warnings", "warnings")):
            if report[key]:
                print(f"\n{title}")
                for line in report[key]:
                    print(f"  {line}")
    if not report["healthy"]:
        raise typer.Exit(DIFFERENCES)


@app.command()
def members(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """List the members: voters, and learners that get the log without a vote."""
    _show_members(options.client(ctx).get("/raft/members").body, form)


@app.command()
def add(
    ctx: typer.Context,
    node: NodeArgument,
    address: AddressOption,
    api: ApiOption = None,
    gateway: GatewayOption = None,
    learner: Annotated[
        bool, typer.Option("--learner", help="Keep it a learner: it gets the log, and no vote.")
    ] = False,
    timeout: TimeoutOption = 600.0,
) -> None:
    """Add a node: first as a learner, then, once it has caught up, as a voter.

    \b
    Before: give the machine a certificate for NODE and settings with `raft.join: true` and the present members under
    raft.peers, and start it with an empty data directory. It waits until it is added.
    """
    body = _member(node, address, api, gateway, "learner" if learner else "voter")
    _add(options.client(ctx), body, timeout)
    print(f"{node}: added" + (" as a learner" if learner else ", and votes"))


@app.command()
def promote(ctx: typer.Context, node: NodeArgument, timeout: TimeoutOption = 600.0) -> None:
    """Make a learner a voter, once it has caught up."""
    client = options.client(ctx)
    path = f"/raft/members/{options.node_segment(node)}/actions/promote"
    _patiently(client, node, timeout, lambda wait: client.request("POST", path, params=wait, read_timeout_s=_READ_S))
    print(f"{node}: votes")


@app.command()
def remove(ctx: typer.Context, node: NodeArgument, timeout: TimeoutOption = 60.0, yes: YesOption = False) -> None:
    """Take a node out, for good: its id is never accepted again, and its process ends.

    Also for a node that is dead: remove it, so that the majority is one of those that live.
    """
    client = options.client(ctx)
    path = f"/raft/members/{options.node_segment(node)}"
    confirm(f"Remove node {node} for good? The id {node} can never be used again in this cluster.", yes=yes)
    _patiently(client, node, timeout, lambda wait: client.request("DELETE", path, params=wait, read_timeout_s=_READ_S))
    print(f"{node}: removed")


@app.command()
def replace(
    ctx: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The node to remove, dead or alive.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The node to add; never an id that was used before.")],
    address: AddressOption,
    api: ApiOption = None,
    gateway: GatewayOption = None,
    timeout: TimeoutOption = 600.0,
    yes: YesOption = False,
) -> None:
    """Add NEW, wait until it votes, then remove OLD. Can be repeated after an interruption.

    While OLD is dead, the cluster of 3 is one failure away from a standstill until this is done.
    """
    client = options.client(ctx)
    body = _member(new, address, api, gateway, "voter")
    path = f"/raft/members/{options.node_segment(old)}"
    if old == new:
        raise typer.BadParameter(f"{old} cannot replace itself: an id is never used twice", param_hint="NEW")
    confirm(f"Replace node {old} by {new}? The id {old} can never be used again in this cluster.", yes=yes)
    _add(client, body, timeout)
    print(f"{new}: added, and votes")
    _patiently(client, old, timeout, lambda wait: client.request("DELETE", path, params=wait, read_timeout_s=_READ_S))
    print(f"{old}: removed")


@app.command()
def leave(ctx: typer.Context, node: NodeArgument, timeout: TimeoutOption = 60.0, yes: YesOption = False) -> None:
    """Let a living node go for good: it hands the leadership over if it leads, and is removed."""
    client = options.client(ctx)
    path = f"/raft/members/{options.node_segment(node)}"
    confirm(f"Let node {node} leave for good? The id {node} can never be used again in this cluster.", yes=yes)
    if client.get("/raft").body.get("leader") == node:
        answer = client.request("POST", "/raft/actions/transfer-leadership", body={}, read_timeout_s=_READ_S).body
        print(f"{text(answer.get('leader'))}: leads")
    _patiently(client, node, timeout, lambda wait: client.request("DELETE", path, params=wait, read_timeout_s=_READ_S))
    print(f"{node}: left; its process ends by itself, and its data directory is of no more use")


@app.command()
def transfer(
    ctx: typer.Context,
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="Who shall lead; else the best voter.")] = None,
) -> None:
    """Hand the leadership over, without an election timeout: before work on the leader's machine."""
    body: Json = {} if node is None else {"target": options.node_segment(node)}
    answer = options.client(ctx).request("POST", "/raft/actions/transfer-leadership", body=body).body
    print(f"{text(answer.get('leader'))}: leads")


@app.command()
def recover(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="Settings of the surviving node.")],
    accept: Annotated[
        bool,
        typer.Option(
            "--yes-i-lose-unreplicated-writes", help="Do it without asking; needed where there is no terminal."
        ),
    ] = False,
) -> None:
    """Offline: make this node the whole cluster, when the majority is lost for ever.

    \b
    Stop the node first, and every other one that may still run. Recover exactly one node: the one whose log ends
    latest; this command prints the plan first, so look at it on each. Then start it, and add new nodes under new ids.
    A snapshot restore loses what came after the backup; this loses what never reached this node.
    """
    from controlplane.bootstrap.raft import raft_settings  # imports the log's engine: only this needs it
    from controlplane.consensus import ConsensusError, plan_recovery
    from controlplane.consensus import recover as carry_out
    from controlplane.settings import SettingsError, load_node

    try:
        raft = raft_settings(load_node(config))
    except (SettingsError, ValueError) as error:
        raise CliError(str(error), hint="docs/guides/settings.md lists every setting") from None
    try:
        plan = plan_recovery(raft.data_dir, raft.node, raft.cluster_id, address=raft.address)
        print(plan)
        if not accept:
            if not typer.get_text_stream("stdin").isatty():
                raise CliError(
                    "nothing was changed: the loss has to be accepted",
                    hint="read the plan, then repeat with --yes-i-lose-unreplicated-writes",
                )
            typed = typer.prompt(f"\nType the node's name ({raft.node}) to go on", default="", show_default=False)
            if typed.strip() != raft.node:
                raise typer.Abort
        carry_out(plan)
    except (ConsensusError, OSError) as error:
        raise CliError(str(error)) from None
    print(
        f"\n{raft.node}: recovered, as the only member, in incarnation {plan.after.incarnation}. "
        "Start it, then add nodes under new ids."
    )


# -- asking every node -------------------------------------------------------------------------------------------------


def ask_all(ctx: typer.Context) -> tuple[dict[str, Json], dict[str, str]]:
    """Every node's `GET /raft`, by node, and why the others did not answer, by node or endpoint. Raises CliError when
    nobody answers.

    The nodes are those that the user named and those whose API addresses any of them knows.
    """
    connection = options.connection(ctx)
    token, ca_file = connection.token(), connection.ca_file()

    def ask(endpoint: str) -> Json | CliError:
        client = Client([endpoint], token, ca_file, retry_for_s=0.0)
        try:
            return client.get("/raft", read_timeout_s=ASK_TIMEOUT_S).body
        except CliError as error:
            return error

    asked: dict[str, Json | CliError] = {}
    wanted = dict.fromkeys(connection.endpoints())
    answers: dict[str, Json] = {}
    silent: dict[str, str] = {}
    names: dict[str, str] = {}
    with ThreadPoolExecutor(16) as pool:
        while wanted:
            for endpoint, answer in zip(wanted, pool.map(ask, wanted), strict=True):
                asked[endpoint] = answer
                if isinstance(answer, CliError):
                    silent[names.get(endpoint, endpoint)] = _reason(answer)
                else:
                    answers[text(answer.get("node"))] = answer
            wanted = {}
            for member in [member for answer in answers.values() for member in objects(answer, "members")]:
                node, api = text(member.get("node")), text(member.get("api"))
                if node in answers or node in silent or not api:
                    continue
                endpoint = endpoint_url(api, f"the API address of {node}")
                names[endpoint] = node
                if endpoint in asked:
                    # The user named it; now it is known whose it is.
                    silent[node] = silent.pop(endpoint, "no answer")
                else:
                    wanted[endpoint] = None
    if not answers:
        first = next(answer for answer in asked.values() if isinstance(answer, CliError))
        raise first
    return answers, silent


def _reason(error: CliError) -> str:
    if isinstance(error, ProblemError):
        return f"{error.code}: {error.message}"
    return error.message.rpartition(": ")[2]


# -- changing members --------------------------------------------------------------------------------------------------

_READ_S = ROUND_S + 20.0


def _member(node: str, address: str, api: str | None, gateway: str | None, role: str) -> Json:
    for flag, value in (("--address", address), ("--api", api), ("--gateway", gateway)):
        if value is not None:
            try:
                split_address(value)
            except ValueError as error:
                raise typer.BadParameter(f"{value!r} {error}", param_hint=flag) from None
    body: Json = {"node": options.node_segment(node), "address": address, "role": role}
    return body | {key: value for key, value in (("api", api), ("gateway", gateway)) if value is not None}


def _add(client: Client, body: Json, timeout_s: float) -> None:
    _patiently(
        client,
        text(body["node"]),
        timeout_s,
        lambda wait: client.request("POST", "/raft/members", params=wait, body=body, read_timeout_s=_READ_S),
    )


def _patiently(client: Client, node: str, timeout_s: float, attempt: Callable[[Params], object]) -> None:
    """Make the request until it is done, saying how far a node that catches up is. Raises the last refusal."""
    give_up = time.monotonic() + timeout_s
    shown = ""
    while True:
        left_s = give_up - time.monotonic()
        try:
            attempt({"timeout_s": f"{min(ROUND_S, max(1.0, left_s)):.1f}"})
        except ProblemError as problem:
            catching_up = problem.code == "membership_refused" and _still_learns(client, node)
            if not catching_up or left_s <= ROUND_S:
                raise
            line = f"{node}: {problem.message}"
            if line != shown:
                print(line, file=sys.stderr)
                shown = line
            time.sleep(0.5)
        else:
            return


def _still_learns(client: Client, node: str) -> bool:
    """Whether `node` is a learner now: then a refusal says only that it has not caught up yet."""
    items = objects(client.get("/raft/members").body, "items")
    return any(item.get("node") == node and item.get("role") == "learner" for item in items)


def _show_members(answer: Json, form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump(answer, form)
        return
    rows = [raft_report.member_row(member) for member in objects(answer, "items")]
    output.table(raft_report.MEMBER_HEADERS, rows, empty="This node is no member yet.")
    if not mapping(answer).get("committed", True):
        print("\nThe last change is not committed yet.", file=sys.stderr)
