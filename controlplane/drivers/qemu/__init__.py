"""Real microVMs: QEMU's `microvm` machine, one process and one folder each (docs/adr/0030).

`driver` is the way in; `guest` acts on one microVM; every other module does one thing for it.
"""

from controlplane.drivers.qemu.driver import QemuDriver

__all__ = ["QemuDriver"]
