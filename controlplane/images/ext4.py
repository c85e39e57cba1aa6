"""ext4 images by `mke2fs`, which needs neither root nor a loop device."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from controlplane.ports import DriverError

_FIXED_TIME_S = "1700000000"


def make_ext4(target: Path, contents: Path | None, *, size_in_mb: int, uuid: str | None = None) -> None:
    """Make `target` an ext4 image of `size_in_mb` that holds the tree `contents`.

    An empty one with a `uuid` has the same bytes every time. Raises DriverError(`Mke2fsMissing` or `Mke2fsFailed`).
    """
    path = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise DriverError("Mke2fsMissing", "no mke2fs; install it: apt-get install e2fsprogs", retryable=False)
    identity = ["-U", uuid, "-E", f"hash_seed={uuid},root_owner=0:0"] if uuid else []
    tree = ["-d", str(contents)] if contents else []
    environment = dict(os.environ) | ({"E2FSPROGS_FAKE_TIME": _FIXED_TIME_S} if uuid else {})
    command = [path, "-q", "-t", "ext4", *tree, *identity, str(target), f"{size_in_mb}M"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if done.returncode != 0:
        raise DriverError("Mke2fsFailed", f"mke2fs could not make {target}: {done.stderr.strip()[-500:]}")
