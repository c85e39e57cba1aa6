"""What Terraform starts. By hand it only says what it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from provider_shim import PROVIDER_SOURCE, __version__

if TYPE_CHECKING:
    from provider_shim.framework.provider import Provider


def main() -> int:
    # Late imports: `--version` and the message below answer at once.
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"terraform-provider-flintlock {__version__}\n")
        return 0
    from provider_shim.protocol.server import serve, started_by_terraform

    if not started_by_terraform():
        sys.stderr.write(
            "This is the Terraform provider for Flintlock. Terraform starts it; by hand it does nothing.\n"
            f'Use it from a configuration: required_providers {{ flintlock = {{ source = "{PROVIDER_SOURCE}" }} }};\n'
            "`python -m provider_shim.mirror --help` says how to install it where `terraform init` finds it.\n"
        )
        return 1
    serve(_provider)
    return 0


def _provider() -> Provider:
    from provider_shim.resources.provider import FlintlockProvider

    return FlintlockProvider()


if __name__ == "__main__":
    sys.exit(main())
