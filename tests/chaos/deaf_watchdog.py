"""flintctl with an agent that is broken on purpose: its watchdog takes no notice of the end of a lease.

As a module it is flintctl (`python -m chaos.deaf_watchdog agent run ...`) whose driver starts this very file as the
watchdog; as a file it is the shipped watchdog for which no lease ever ends. The product has no switch for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __spec__ is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "controlplane" / "drivers" / "qemu"))
    import watchdog  # by its file: a watchdog has no packages

    assert callable(watchdog.verdict), "what is replaced has to be what decides"
    watchdog.verdict = lambda *_: ("run", float("inf"))
    sys.exit(watchdog.main())

from controlplane.cli.main import main
from controlplane.drivers.qemu import watchdog

watchdog.__file__ = __file__
main()
