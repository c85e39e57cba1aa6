"""flintctl snapshot: backups of the whole state, and what can be made of them.

save talks to the cluster; everything else works on the store alone, with every byte checked against its hash, so it
works when the cluster is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from controlplane.cli import options, output
from controlplane.cli.commands.resources import confirm
from controlplane.cli.errors import CliError
from controlplane.cli.options import YesOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.raft_report import size

if TYPE_CHECKING:
    from controlplane.backup.repository import Entry, Repository
    from controlplane.manifest import Manifest

LOCATION_HELP = "A directory, FILE.flsnap, or s3://BUCKET/PREFIX."
LocationArgument = Annotated[str, typer.Argument(metavar="LOCATION", help=LOCATION_HELP)]
SnapshotArgument = Annotated[
    str | None, typer.Argument(metavar="[SNAPSHOT]", help="Its name, time or index; else the newest one.")
]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="ID", help="Where one store holds snapshots of several clusters.")
]
CredentialsOption = Annotated[
    Path | None,
    typer.Option(
        "--s3-credentials",
        metavar="FILE",
        help="YAML of mode 0600 with access_key_id and secret_access_key; else FLINTLOCK_S3_FILE, else AWS_*.",
    ),
]

app = options.new_app(
    """Backups of the cluster's whole state: save, look, verify, restore.

\b
Examples:
  flintctl snapshot save /var/backups/flintlock --keep 14     only what changed is sent and kept
  flintctl snapshot save today.flsnap                         everything in one file
  flintctl snapshot save s3://backups/flintlock               AWS_ACCESS_KEY_ID, ... or --s3-credentials
  flintctl snapshot list s3://backups/flintlock
  flintctl snapshot verify /var/backups/flintlock             read every byte and build the state from it
  flintctl snapshot restore today.flsnap --config node.yaml --dry-run

\b
A snapshot holds everything that was acknowledged before it was taken. It holds what microVMs were given as metadata,
too: keep it as you keep secrets. docs/guides/operations.md says how to restore a cluster.
"""
)


@app.command()
def save(
    ctx: typer.Context,
    location: LocationArgument,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Afterwards remove all but the newest so many of this cluster.")
    ] = None,
    credentials: CredentialsOption = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, max=86_400, metavar="SECONDS")] = 3600.0,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Save a snapshot of now. An interrupted save shows nothing; started again, it goes on where it was."""
    from controlplane.cli import snapshots
    from controlplane.cli.client import Client

    connection = options.connection(ctx)
    token, ca_file = connection.token(), connection.ca_file()
    clients = [Client([endpoint], token, ca_file, retry_for_s=0.0) for endpoint in connection.endpoints()]
    meter = snapshots.Meter()
    with _repository(location, credentials) as repository:
        try:
            saved, taken = snapshots.save(
                clients,
                repository,
                now_s=time.time,
                timeout_s=timeout,
                progress=meter,
                say=lambda line: typer.echo(line, err=True),
            )
        finally:
            meter.end()
        pruned = None
        if keep is not None and repository.store.shared:
            pruned = repository.prune(keep=keep, cluster_id=saved.entry.cluster_id)
    document = {
        "snapshot": saved.entry.name,
        "location": repository.store.location,
        "cluster_id": saved.entry.cluster_id,
        "index": saved.entry.index,
        "revision": taken.get("revision"),
        "chunks": saved.chunks,
        "size": saved.size,
        "uploaded_chunks": saved.uploaded_chunks,
        "uploaded_bytes": saved.uploaded_bytes,
        "pruned_snapshots": pruned.snapshots if pruned is not None else 0,
    }
    if output.machine_readable(form):
        output.dump(document, form)
        return
    print(f"{saved.entry.name}: saved at {repository.store.location}")
    print(f"revision {document['revision']}, {size(saved.size)}; {size(saved.uploaded_bytes)} of it new")
    if pruned is not None and pruned.snapshots:
        print(f"{pruned.snapshots} older ones removed, {size(pruned.size)} freed")


@app.command("list")
def list_(
    location: LocationArgument,
    cluster: ClusterOption = None,
    credentials: CredentialsOption = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """List the snapshots at a place, the oldest first."""
    with _repository(location, credentials) as repository:
        entries = repository.entries(cluster)
    if output.machine_readable(form):
        output.dump({"items": [_entry(entry) for entry in entries]}, form)
        return
    rows = [[entry.cluster_id, entry.taken_at, str(entry.index), entry.name] for entry in entries]
    output.table(["CLUSTER", "TAKEN", "INDEX", "NAME"], rows, empty=f"No snapshot at {repository.store.location}.")


@app.command()
def inspect(
    location: LocationArgument,
    snapshot: SnapshotArgument = None,
    cluster: ClusterOption = None,
    credentials: CredentialsOption = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Show what is in a snapshot, from its manifest alone: nothing else is read."""
    with _repository(location, credentials) as repository:
        entry = repository.find(snapshot, cluster)
        document = _described(repository, entry, repository.manifest(entry))
    _show(document, form)


@app.command()
def verify(
    location: LocationArgument,
    snapshot: SnapshotArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Every snapshot, not only one.")] = False,
    cluster: ClusterOption = None,
    credentials: CredentialsOption = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Read every byte, compare every hash, build the state, and reckon its digest anew. Nothing is written."""
    from controlplane.backup.contents import load_state

    verified: list[dict[str, object]] = []
    with _repository(location, credentials) as repository:
        entries = repository.entries(cluster) if everything else [repository.find(snapshot, cluster)]
        for entry in entries:
            manifest = repository.manifest(entry)
            state = load_state(repository, entry, manifest)
            verified.append(
                {**_described(repository, entry, manifest), "verified": True, "digest": f"{state.digest:032x}"}
            )
    if output.machine_readable(form):
        output.dump({"items": verified}, form)
        return
    for each in verified:
        print(f"{each['snapshot']}: every byte as it was saved; the state has digest {each['digest']}")
    if not verified:
        print(f"No snapshot at {repository.store.location}.")


@app.command()
def restore(
    location: LocationArgument,
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="Settings of the node (YAML).")],
    snapshot: SnapshotArgument = None,
    cluster: ClusterOption = None,
    incarnation: Annotated[
        int | None,
        typer.Option(
            "--incarnation",
            metavar="N",
            help="Of the restored cluster, the same on every node; else the snapshot's and one. Higher where the "
            "cluster had that one already (restored before, or recovered).",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify everything and say what would be done.")] = False,
    credentials: CredentialsOption = None,
) -> None:
    """Write a node's data directory from a snapshot. Offline: the node must not run, its log must be empty or absent.

    \b
    Do it on every node of the settings, from the same snapshot, then start them. The cluster begins anew under a
    higher incarnation: what was acknowledged after the snapshot is lost, and nodes with older data are refused.
    MicroVMs are never destroyed by a restore: those made since are reported as unmanaged, those deleted since are
    made again.
    """
    from controlplane.backup.contents import describe, load_state
    from controlplane.bootstrap.raft import raft_settings
    from controlplane.consensus.errors import ConsensusError
    from controlplane.consensus.restore import plan_restore
    from controlplane.consensus.restore import restore as restore_to
    from controlplane.machine.entry import MachineState
    from controlplane.settings import SettingsError, load_node

    try:
        settings = load_node(config)
        raft = raft_settings(settings)
    except (SettingsError, ValueError) as error:
        raise CliError(str(error), hint="docs/guides/settings.md lists every setting") from None
    with _repository(location, credentials) as repository:
        entry = repository.find(snapshot, cluster or settings.cluster_id)
        manifest = repository.manifest(entry)
        contents = describe(entry, manifest)
        try:
            configuration = plan_restore(raft, manifest, incarnation)
            if dry_run:
                load_state(repository, entry, manifest)
            else:
                state = MachineState(settings.cluster_id)
                restore_to(raft, manifest, repository.chunks(manifest.chunks), state, incarnation=incarnation)
        except (ConsensusError, OSError) as error:
            raise CliError(str(error)) from None
    output.pairs(
        [
            ("Snapshot", f"{entry.name} at {repository.store.location}"),
            ("Node", f"{settings.node} of cluster {settings.cluster_id}"),
            ("Log", f"{raft.data_dir}, beginning above index {manifest.index}"),
            ("State", f"revision {contents.revision}, digest {contents.digest}"),
            ("Incarnation", f"{configuration.incarnation} (the snapshot's is {manifest.incarnation})"),
            ("Members", "\n".join(f"{member.node} at {member.address}" for member in configuration.members)),
        ]
    )
    others = ", ".join(member.node for member in configuration.members if member.node != settings.node)
    if dry_run:
        print("\nThe snapshot is whole. Nothing was written: --dry-run.")
        return
    print(f"\n{settings.node}: restored." + (f" Do the same for {others}, then start all of them." if others else ""))
    print(
        "Look at `flintctl raft status`, then at `flintctl drift` for what hosts run that the snapshot does not know."
    )


@app.command()
def prune(
    location: LocationArgument,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of each cluster stay, the newest ones.")],
    cluster: ClusterOption = None,
    grace: Annotated[
        float | None,
        typer.Option(
            "--grace", min=0, metavar="SECONDS", help="Chunks that nobody needs go when they are so old; 3600."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    credentials: CredentialsOption = None,
    yes: YesOption = False,
) -> None:
    """Remove old snapshots, and the chunks that only they needed. Gives way to a save that is at work."""
    from controlplane.backup.repository import GRACE_S

    if not dry_run:
        confirm(f"Remove all but the newest {keep} snapshots{f' of {cluster}' if cluster else ''}?", yes=yes)
    with _repository(location, credentials) as repository:
        grace_s = GRACE_S if grace is None else grace
        gone = repository.prune(keep=keep, cluster_id=cluster, grace_s=grace_s, dry_run=dry_run)
    verb = "would go" if dry_run else "removed"
    print(f"{gone.snapshots} snapshots and {gone.chunks} chunks ({size(gone.size)}) {verb}; {gone.kept} snapshots stay")


# -- shared ------------------------------------------------------------------------------------------------------------


@contextmanager
def _repository(location: str, credentials: Path | None) -> Generator[Repository]:
    """The snapshots at `location`, with what goes wrong there turned into flintctl's errors."""
    from controlplane.backup import open_store
    from controlplane.backup.repository import Repository
    from controlplane.ports import StoreError

    try:
        yield Repository(open_store(location, os.environ, credentials=credentials))
    except StoreError as error:
        raise CliError(f"{error.message} [{error.code}]", hint=error.hint or None) from None


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "snapshot": entry.name,
        "cluster_id": entry.cluster_id,
        "taken_at": entry.taken_at,
        "index": entry.index,
    }


def _described(repository: Repository, entry: Entry, manifest: Manifest) -> dict[str, object]:
    from controlplane.backup.contents import describe
    from controlplane.consensus.configuration import decode

    contents = describe(entry, manifest)
    try:
        members = [
            {"node": member.node, "role": member.role, "address": member.address}
            for member in decode(manifest.configuration).members
        ]
    except ValueError:
        # For people only: a restore takes the members from the settings.
        members = []
    return {
        **_entry(entry),
        "location": repository.store.location,
        "incarnation": manifest.incarnation,
        "term": manifest.term,
        "revision": contents.revision,
        "machine_version": contents.machine_version,
        "state_digest": contents.digest,
        "counts": dict(contents.counts),
        "chunks": len(manifest.chunks),
        "size": manifest.size,
        "members": members,
    }


def _show(document: dict[str, object], form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump(document, form)
        return
    counts = cast("dict[str, int]", document["counts"])
    members = cast("list[dict[str, str]]", document["members"])
    shown = [f"{each['node']} ({each['role']}, {each['address']})" for each in members]
    output.pairs(
        [
            ("Snapshot", str(document["snapshot"])),
            ("At", str(document["location"])),
            ("Cluster", f"{document['cluster_id']} (incarnation {document['incarnation']})"),
            ("Taken", str(document["taken_at"])),
            ("Log", f"index {document['index']}, term {document['term']}"),
            ("Revision", str(document["revision"])),
            ("State digest", str(document["state_digest"])),
            ("Contents", ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"),
            ("Size", f"{size(document['size'])} in {document['chunks']} chunks"),
            ("Members", "\n".join(shown) or "unknown"),
        ]
    )
