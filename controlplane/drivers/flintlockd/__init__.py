"""MicroVMs on a Flintlock host, through its v1alpha1 gRPC API.

Flintlock's create is not idempotent and it has no update, pause or stop. `driver` makes create safe with a journal on
disk and labels on the microVM, makes an update of a deletion and a create, and refuses the rest. `translate` and
`copies` are pure; `client` is the only module that talks to the host.
"""

from controlplane.drivers.flintlockd.driver import FlintlockdDriver
from controlplane.drivers.flintlockd.settings import FlintlockdSettings

__all__ = ["FlintlockdDriver", "FlintlockdSettings"]
