"""A guest that bears witness: the demo guest, and a loop that counts aloud.

Every count is a line `witness UID NONCE COUNT` on the serial console, and the same by syslog over UDP (what a static
busybox can send) to whoever the microVM's metadata names. The nonce is the guest kernel's boot id, so a second boot of
the same microVM is told from a first one that goes on. The loop is put in front of the demo guest's `flintlock: ready`.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from controlplane.images import cpio
from controlplane.images.demo import add_demo_images, build_initrd
from controlplane.images.kernel import find_kernel
from controlplane.images.store import LocalImageStore

BRIDGE = "br0"
PORT = 5514
INITRD = "chaos/initrd:1"
MEMORY_IN_MB = 96
"""With 80 MB this kernel does not boot."""
_READY = 'echo "flintlock: ready"\n'
_LOOP = """
syslogd -n -R "$(cat /seed/recorder)" -O /dev/null &
(
    nonce=$(cat /proc/sys/kernel/random/boot_id)
    count=0
    while true; do
        count=$((count + 1))
        echo "witness $uid $nonce $count"
        logger "witness $uid $nonce $count"
        usleep 250000
    done
) &
"""
_LINE = re.compile(rb"witness (\S+) ([0-9a-f-]{36}) (\d+)\r?(?:\n|\0|$)")


def add_images(directory: Path) -> None:
    """The demo images and the witness's initrd. Raises DriverError with what is missing."""
    store = LocalImageStore(directory)
    add_demo_images(store)
    init = resources.files("controlplane.images").joinpath("guest/init.sh").read_text()
    assert init.count(_READY) == 1, "the demo guest says when it is ready elsewhere now"
    # The kernel unpacks one archive after the other; the later `init` replaces the earlier one.
    ours = cpio.archive([cpio.file("init", init.replace(_READY, _LOOP + _READY).encode(), 0o755)])
    initrd = directory / "witness-initrd"
    initrd.write_bytes(build_initrd(find_kernel()) + ours)
    store.add(INITRD, {"initrd": initrd}, {"initrd": "initrd"}, source="the demo guest, counting aloud")


def spec(address: str, recorder: str, recovery: dict[str, object], **more: object) -> dict[str, object]:
    """A microVM at `address` that tells `recorder` (ADDRESS:PORT) of itself."""
    return {
        "vcpu": 1,
        "memory_in_mb": MEMORY_IN_MB,
        "kernel": {"image": "demo/kernel"},
        "initrd": {"image": INITRD},
        "interfaces": {"eth0": {"bridge_name": BRIDGE, "address": {"address": f"{address}/24"}}},
        "metadata": {"recorder": recorder},
        "recovery": recovery,
        **more,
    }


def read(text: bytes) -> list[tuple[str, str, int]]:
    """(uid, nonce, count) of each whole line of a console or a datagram."""
    return [(uid.decode(), nonce.decode(), int(count)) for uid, nonce, count in _LINE.findall(text)]
