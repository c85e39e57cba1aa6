"""flintctl dev: a cluster on this machine, to play with and to demonstrate."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.commands import provider
from controlplane.cli.context import ClusterContext, config_path, save_context
from controlplane.cli.dev import demo, layout, leftovers, setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.progress import Progress
from controlplane.cli.errors import CliError
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import dig, text

CONTEXT = "dev"
_DRIVERS = ("auto", "qemu", "simulated")
_NEXT = """
Next:
  flintctl host list                              agents that wait; `flintctl host admit h1` lets one in
  eval "$(flintctl dev env{flag})" && cd examples/quickstart && terraform init && terraform apply"""

DirOption = Annotated[
    Path,
    typer.Option("--dir", metavar="DIR", envvar="FLINTLOCK_DEV_DIR", help="Where the cluster's files are."),
]

app = options.new_app(
    """A throwaway cluster on this machine: nodes, hosts, a certificate authority and a token of its own.

\b
Examples:
  flintctl dev up                     3 nodes and 3 hosts on loopback
  eval "$(flintctl dev env)"          endpoints, token and CA for Terraform and other clients
  flintctl dev down --purge           end it, with its microVMs and files
  flintctl dev demo                   the whole story, checked step by step
"""
)


@app.command()
def up(
    directory: DirOption = layout.DEFAULT_DIRECTORY,
    nodes: Annotated[int | None, typer.Option(min=1, max=layout.MAX_NODES, help="Nodes; odd. [default: 3]")] = None,
    hosts: Annotated[int | None, typer.Option(min=1, max=layout.MAX_HOSTS, help="Hosts. [default: 3]")] = None,
    driver: Annotated[
        str | None, typer.Option(metavar="|".join(_DRIVERS), help="What runs the microVMs. [default: auto]")
    ] = None,
    admit: Annotated[bool, typer.Option(help="Declare the hosts, so that they get work at once.")] = False,
) -> None:
    """Start a local cluster, or what is missing of it. Repeating it is harmless."""
    if nodes is not None and nodes % 2 == 0:
        raise typer.BadParameter(
            f"{nodes} nodes tolerate no more failures than {nodes - 1}: take an odd number", param_hint="--nodes"
        )
    if driver is not None and driver not in _DRIVERS:
        raise typer.BadParameter(f"{driver!r} is not one of {', '.join(_DRIVERS)}", param_hint="--driver")
    progress = Progress()
    existing = layout.load(directory)
    if existing is not None:
        _check_unchanged(existing, nodes, hosts, driver)
        chosen = existing
    else:
        chosen = setup.create(directory, nodes=nodes or 3, hosts=hosts or 3, driver=driver or "auto", say=progress.say)
        _lay_out_provider(chosen, progress)
    cluster = DevCluster(chosen, progress)
    started = cluster.start()
    if started:
        with progress.step(f"Started {', '.join(started)}"):
            cluster.await_ready()
    else:
        progress.say("Everything runs already.")
    if admit:
        _admit(cluster)
    save_context(config_path(os.environ), CONTEXT, _context(chosen))
    _print_status(cluster)
    if chosen.plan.driver == "simulated":
        progress.say("\nSIMULATED: the hosts of this cluster run no real microVM.")
    if started:
        progress.say(_NEXT.format(flag="" if directory == layout.DEFAULT_DIRECTORY else f" --dir {directory}"))


@app.command()
def down(
    directory: DirOption = layout.DEFAULT_DIRECTORY,
    purge: Annotated[bool, typer.Option("--purge", help="Destroy its microVMs, too, and remove its files.")] = False,
) -> None:
    """End the processes of a local cluster. Its microVMs go on running, unless --purge."""
    progress = Progress()
    cluster = DevCluster(_require(directory), progress)
    if purge:
        _destroy_microvms(cluster, progress)
    with progress.step("Stopped the processes"):
        killed = cluster.stop()
    if killed:
        progress.say(f"Had to be killed: {', '.join(killed)}")
    if not purge:
        running = len(leftovers.vm_processes(cluster.layout))
        if running:
            progress.say(
                f"{running} microVMs go on running; `flintctl dev up` finds them, `down --purge` destroys them."
            )
        return
    resisted = cluster.purge()
    save_context(config_path(os.environ), CONTEXT, None)
    if resisted:
        raise CliError("something is left:\n" + "\n".join(f"  {line}" for line in resisted))
    progress.say(f"Removed {cluster.layout.directory}; nothing is left.")


@app.command()
def status(directory: DirOption = layout.DEFAULT_DIRECTORY, form: Output = OutputFormat.TABLE) -> None:
    """Show the processes of a local cluster. Exits with 1 when one of them does not run."""
    cluster = DevCluster(_require(directory), Progress())
    if not output.machine_readable(form):
        _print_status(cluster)
    else:
        members = [
            {"name": member.name, "role": member.role, "pid": member.process.pid if member.process else None}
            for member in cluster.members()
        ]
        plan = cluster.layout.plan
        output.dump({"cluster_id": plan.cluster_id, "driver": plan.driver, "members": members}, form)
    if any(member.process is None for member in cluster.members()):
        raise typer.Exit(1)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A node (n1, ...) or a host (h1, ...).")],
    directory: DirOption = layout.DEFAULT_DIRECTORY,
    lines: Annotated[int, typer.Option("--lines", min=1, max=100_000)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what comes, until Ctrl-C.")] = False,
) -> None:
    """Print the end of a process' log."""
    chosen = _require(directory)
    if name not in chosen.names:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(chosen.names)}", param_hint="NAME")
    path = chosen.log(name)
    if not path.is_file():
        raise CliError(f"{name} has written no log yet", hint="flintctl dev up")
    command = ["tail", f"--lines={lines}", *(["--follow=name"] if follow else []), str(path)]
    try:
        subprocess.run(command, check=False)
    except KeyboardInterrupt:
        if not follow:
            raise


@app.command()
def env(directory: DirOption = layout.DEFAULT_DIRECTORY) -> None:
    """Print export lines for a shell: eval "$(flintctl dev env)"."""
    chosen = _require(directory)
    variables = chosen.environment
    config = chosen.mirror / "terraform.rc"
    if config.is_file():
        variables["TF_CLI_CONFIG_FILE"] = str(config)
    for key, value in variables.items():
        print(f"export {key}={shlex.quote(value)}")


app.command("demo")(demo.command)


def _require(directory: Path) -> layout.Layout:
    chosen = layout.load(directory)
    if chosen is None:
        raise CliError(f"there is no cluster in {directory}", hint="flintctl dev up, or name another --dir")
    return chosen


def _check_unchanged(existing: layout.Layout, nodes: int | None, hosts: int | None, driver: str | None) -> None:
    """A second `up` may repeat what the first one said, not change it."""
    plan = existing.plan
    for flag, asked, has in (
        ("--nodes", nodes, len(plan.nodes)),
        ("--hosts", hosts, len(plan.hosts)),
        ("--driver", None if driver == "auto" else driver, plan.driver),
    ):
        if asked is not None and asked != has:
            raise CliError(
                f"{flag} {asked}: the cluster in {existing.directory} has {has}",
                hint="`flintctl dev down --purge` removes it; --dir makes another one",
            )


def _lay_out_provider(chosen: layout.Layout, progress: Progress) -> None:
    """So that `dev env` is all that Terraform needs. A cluster is of use without it, too."""
    try:
        provider.lay_out(chosen.mirror)
    except CliError as error:
        progress.say(f"Terraform cannot use this cluster yet: {error.message}")


def _admit(cluster: DevCluster) -> None:
    client = cluster.client()
    for host in cluster.layout.plan.hosts:
        if client.find(f"/hosts/{host.name}") is None:
            client.request("PUT", f"/hosts/{host.name}", body={"spec": {"schedulable": True}})


def _destroy_microvms(cluster: DevCluster, progress: Progress) -> None:
    """Through the control plane when it answers, so that taps and files go the regular way; else by force later."""
    if cluster.status() is None:
        return
    try:
        with progress.step("Destroyed the microVMs"):
            cluster.delete_microvms()
    except CliError as error:
        progress.say(
            f"The cluster could not destroy its microVMs ({error.message}); their processes are killed instead."
        )


def _context(chosen: layout.Layout) -> ClusterContext:
    return ClusterContext(endpoints=chosen.endpoints, ca_file=chosen.ca_file, token_file=chosen.token_file)


def _print_status(cluster: DevCluster) -> None:
    view = cluster.status()
    leader = text(dig(view, "log", "leader"))
    rows = [
        [
            member.name,
            member.role,
            "up" if member.process else "down",
            text(member.process.pid if member.process else None),
            (cluster.layout.endpoint(member.name) if member.role == "node" else f"driver {cluster.layout.plan.driver}"),
            "leader" if member.name == leader else "",
        ]
        for member in cluster.members()
    ]
    output.table(["NAME", "ROLE", "STATE", "PID", "AT", "NOTE"], rows, empty="")
