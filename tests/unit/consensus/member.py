"""One cluster member as a process: settings file and socket path as arguments, SIGTERM ends it.

With a file `disk.json` beside the settings it runs on a disk that obeys that file (see support.faulty_disk).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

import msgspec
from support.faulty_disk import FaultyDisk
from unit.consensus.support import ListState

from controlplane.bootstrap.process import calm_collector
from controlplane.consensus import ConsensusError, RaftNode, RaftSettings, serve
from controlplane.consensus.disk import Disk


def _path(kind: type, value: object) -> object:
    assert kind is Path
    return Path(str(value))


async def main(settings: RaftSettings, socket_path: Path, disk: Disk | None) -> int:
    node = RaftNode(settings, ListState(), disk=disk)
    try:
        await node.start()
        serving = asyncio.ensure_future(serve(node, socket_path))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        await serving
    except asyncio.CancelledError:
        return 0
    except (ConsensusError, OSError) as error:
        logging.critical("%s: %s", type(error).__name__, error)  # noqa: LOG015 - what the test reads
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # As in the real process: what garbage costs in between is part of what is tested.
    calm_collector()
    raw = Path(sys.argv[1]).read_bytes()
    control = Path(sys.argv[1]).with_name("disk.json")
    faulty = FaultyDisk(control=control) if control.exists() else None
    settings = msgspec.msgpack.decode(raw, type=RaftSettings, dec_hook=_path)
    sys.exit(asyncio.run(main(settings, Path(sys.argv[2]), faulty)))
