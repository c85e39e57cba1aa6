"""The provider's own executable, kept alive over many Terraform commands: `TF_REATTACH_PROVIDERS`.

Terraform connects to the process instead of starting one for each command, and needs neither `init` nor a mirror, so a
command takes a fraction of the time. Everything else is the same: the process, the protocol, the socket.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from provider_shim import PROVIDER_SOURCE
from provider_shim.protocol.server import COOKIE_NAME, COOKIE_VALUE

END_S = 20.0


@contextmanager
def kept_provider(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """What Terraform's environment needs, while a provider that was started with `environment` runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "provider_shim"],
        env={**environment, COOKIE_NAME: COOKIE_VALUE},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            _, version, network, address, protocol, _ = process.stdout.readline().split("|")
            reattach = {
                "Protocol": protocol,
                "ProtocolVersion": int(version),
                "Pid": process.pid,
                "Test": True,
                "Addr": {"Network": network, "String": address},
            }
            yield {"TF_REATTACH_PROVIDERS": json.dumps({PROVIDER_SOURCE: reattach})}
            assert process.poll() is None, "the provider ended while Terraform used it"
        finally:
            process.terminate()
            process.wait(END_S)
