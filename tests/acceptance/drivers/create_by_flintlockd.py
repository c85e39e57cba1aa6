"""An agent's create in a process of its own, to be killed: ENDPOINT TOKEN STATE_DIR UID."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acceptance.drivers.conformance import definition
from acceptance.drivers.test_flintlockd import SPEC

from controlplane.drivers.flintlockd import FlintlockdDriver, FlintlockdSettings


async def main(endpoint: str, token: str, state_dir: str, uid: str) -> None:
    driver = FlintlockdDriver(FlintlockdSettings(endpoint=endpoint, token=token, state_dir=Path(state_dir)))
    await driver.start()
    await driver.create(definition(SPEC, uid=uid))


asyncio.run(main(*sys.argv[1:]))
