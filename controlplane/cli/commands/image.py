"""flintctl image: the image store of this host, from which microVMs take kernels, initrds and disks.

These commands work on a local folder and talk to no cluster: each host has its own store. The store's parts are
imported when a command needs them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.columns import age
from controlplane.cli.errors import CliError
from controlplane.cli.options import YesOption
from controlplane.cli.output import Output, OutputFormat

if TYPE_CHECKING:
    from controlplane.images.store import LocalImageStore, Manifest

SYSTEM_STORE = Path("/var/lib/flintlock/images")
USER_STORE = Path("~/.local/share/flintlock/images")

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help=f"The store; else FLINTLOCK_IMAGES, else {SYSTEM_STORE} for root and {USER_STORE} for others.",
    ),
]
ReferenceArgument = Annotated[str, typer.Argument(metavar="NAME[:TAG]", help="Such as demo/kernel:6.1.")]

app = options.new_app(
    """Images on this host: kernels, initrds and disks for microVMs.

\b
Examples:
  flintctl image demo                                      build the demo images from this machine's packages
  flintctl image add acme/kernel:6.12 --kernel bzImage     add a kernel
  flintctl image add acme/web:3 --disk web.ext4            add a root disk
  flintctl image pull docker://registry.example/web:3      fetch a container image and make a disk of it
"""
)


@app.command()
def add(
    reference: ReferenceArgument,
    kernel: Annotated[Path | None, typer.Option("--kernel", metavar="FILE", help="bzImage or vmlinux.")] = None,
    initrd: Annotated[Path | None, typer.Option("--initrd", metavar="FILE", help="Initial RAM disk.")] = None,
    disk: Annotated[Path | None, typer.Option("--disk", metavar="FILE", help="Raw disk or file system image.")] = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", metavar="NAME=FILE", help="Another file, under that name. Repeatable.")
    ] = None,
    directory: StoreOption = None,
) -> None:
    """Add an image made of local files, replacing what has the same name and tag."""
    found: dict[str, Path] = {}
    roles: dict[str, str] = {}
    for role, path in (("kernel", kernel), ("initrd", initrd), ("disk", disk)):
        if path is not None:
            roles[role] = path.name
            found[path.name] = path
    for entry in files or ():
        name, separator, path_text = entry.partition("=")
        if not separator or not name or not path_text:
            raise typer.BadParameter(f"{entry!r} is not NAME=FILE", param_hint="--file")
        found[name] = Path(path_text)
    if not found:
        raise typer.BadParameter("name at least one file: --kernel, --initrd, --disk or --file")
    for path in found.values():
        if not path.is_file():
            raise CliError(f"{path} is not a file")
    with _store(directory) as store:
        manifest = store.add(reference, found, roles, source="files of this host")
    print(f"{manifest.reference}: {manifest.digest} ({_size(manifest.size)})")


@app.command()
def pull(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="docker://HOST/NAME:TAG, or oci:FOLDER:TAG for a layout on disk.")
    ],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME[:TAG]", help="Its name in the store; else the source's own.")
    ] = None,
    size_in_mb: Annotated[
        int | None,
        typer.Option("--size-in-mb", min=1, help="Size of the disk; else what its files need, and some room."),
    ] = None,
    directory: StoreOption = None,
) -> None:
    """Fetch a container image: its files become a disk, what is under boot/ its kernel and initrd.

    Needs skopeo, umoci and mke2fs.
    """
    if source.startswith("oci:") and name is None:
        raise typer.BadParameter(f"{source} has no name of its own: give it one", param_hint="--as")
    with _store(directory) as store:
        from controlplane.images.oci import import_image

        manifest = import_image(store, source, image=name, size_in_mb=size_in_mb)
    print(f"{manifest.reference}: {manifest.digest} ({_size(manifest.size)})")


@app.command("list")
def list_(directory: StoreOption = None, form: Output = OutputFormat.TABLE) -> None:
    """List the images of this host."""
    with _store(directory) as store:
        manifests = store.list()
    if output.machine_readable(form):
        output.dump({"store": str(store.root), "items": [_document(manifest) for manifest in manifests]}, form)
        return
    headers = ["IMAGE", "FILES", "SIZE", "AGE", *(["DIGEST", "SOURCE"] if form is OutputFormat.WIDE else [])]
    output.table(
        headers, [_row(m, wide=form is OutputFormat.WIDE) for m in manifests], empty=f"No image in {store.root}."
    )


@app.command()
def remove(reference: ReferenceArgument, directory: StoreOption = None, yes: YesOption = False) -> None:
    """Remove an image. Disks that were made from it are copies and stay."""
    from controlplane.cli.commands.resources import confirm  # keeps `image` free of the HTTP client's imports

    with _store(directory) as store:
        confirm(f"Remove image {reference} from {store.root}?", yes=yes)
        if not store.remove(reference):
            raise CliError(f"image {reference} is not in {store.root}", hint="flintctl image list")
    print(f"{reference}: removed")


@app.command()
def verify(directory: StoreOption = None) -> None:
    """Read every byte of every image and compare it with its digest."""
    with _store(directory) as store:
        problems = store.verify()
        count = len(store.list())
    for problem in problems:
        print(problem)
    if problems:
        raise CliError(f"{len(problems)} problems in {store.root}", hint="add the image again")
    print(f"{count} images in {store.root}: every byte as it was added")


@app.command()
def demo(directory: StoreOption = None) -> None:
    """Build demo/kernel, demo/initrd and demo/root from this machine's kernel and busybox packages."""
    with _store(directory) as store:
        from controlplane.images.demo import add_demo_images

        images = add_demo_images(store)
    for manifest in (images.kernel, images.initrd, images.root):
        print(f"{manifest.reference}: {manifest.digest} ({_size(manifest.size)})")


def store_directory(directory: Path | None) -> Path:
    if directory is not None:
        return directory
    if named := os.environ.get("FLINTLOCK_IMAGES"):
        return Path(named)
    return SYSTEM_STORE if os.geteuid() == 0 else USER_STORE.expanduser()


@contextmanager
def _store(directory: Path | None) -> Generator[LocalImageStore]:
    """The store, with its errors turned into flintctl's."""
    from controlplane.images.store import LocalImageStore
    from controlplane.ports import DriverError

    try:
        yield LocalImageStore(store_directory(directory))
    except DriverError as error:
        raise CliError(f"{error.message} [{error.code}]") from None


def _document(manifest: Manifest) -> dict[str, object]:
    return {
        "name": manifest.name,
        "tag": manifest.tag,
        "digest": manifest.digest,
        "size": manifest.size,
        "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in manifest.files.items()},
        "roles": manifest.roles,
        "source": manifest.source,
        "added_at_ms": manifest.added_at,
    }


def _row(manifest: Manifest, *, wide: bool) -> list[str]:
    roles = {name: role for role, name in manifest.roles.items()}
    files = ", ".join(f"{name} ({roles[name]})" if name in roles else name for name in sorted(manifest.files))
    added = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(manifest.added_at / 1000))
    cells = [manifest.reference, files, _size(manifest.size), age(added, options.now_ms())]
    return [*cells, manifest.digest, manifest.source] if wide else cells


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
