"""Is what we speak tfplugin6, as others speak it? `make provider-conformance`.

The provider builds its messages from a table of its own (`provider_shim/protocol/tfplugin6.txt`). Here the stubs of
pyvider, in an environment of their own, are the judge: every message, field and call that we have must be the same in
theirs, and a client made of their stubs drives the real executable, with the real API over an in-memory replica behind
it. `independent.py` is what runs over there; this starts it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import structlog
from provider_shim.mirror import lay_out
from provider_shim.protocol.messages import descriptor
from unit.api.rig import SPEC, TOKEN, Rig, served

INDEPENDENT = Path(__file__).with_name("independent.py")
TIMEOUT_S = 120


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--independent", type=Path, required=True, help="Python that has the independent stubs")
    chosen = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="conformance-") as name, served(Path(name) / "api") as api:
        directory = Path(name)
        ours = directory / "ours.pb"
        ours.write_bytes(descriptor())
        executable = lay_out(directory / "mirror", Path(sys.executable))
        api.with_host()
        api.put_vm(**SPEC)
        return subprocess.run(
            [chosen.independent, INDEPENDENT, ours, executable],
            env=environment(api),
            timeout=TIMEOUT_S,
            check=False,
        ).returncode


def environment(api: Rig) -> dict[str, str]:
    """Nothing of ours is importable over there."""
    return {
        "PATH": "/usr/bin:/bin",
        "FLINTLOCK_ENDPOINTS": api.url("//"),
        "FLINTLOCK_TOKEN": TOKEN,
        "FLINTLOCK_CA_FILE": str(api.session.verify),
    }


if __name__ == "__main__":
    sys.exit(main())
