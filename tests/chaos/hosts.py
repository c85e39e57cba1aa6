"""Hosts as network namespaces: a bridge that guests are plugged into, a real agent, its watchdog, and QEMU.

Each has a boot id of its own, put over the kernel's in its own mount namespace, so that a host which loses its power
comes back as another boot, as a real one does. Faults come from outside, by signals and links, on processes that are
found by the namespace they live in and by their command lines.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from chaos.witness import BRIDGE
from linearizability.cluster import FAKETIME, REPOSITORY
from linearizability.network import Network
from linearizability.sandbox import command

Part = Literal["agent", "watchdog", "qemu"]
_WORDS: Mapping[Part, Sequence[bytes]] = {
    "agent": (b"agent", b"--config"),
    "watchdog": (b"watchdog.py", b"--socket"),
    "qemu": (b"qemu-system-x86_64", b"-machine"),
}
_ENTER = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
_GONE_S = 10.0


@dataclass
class Host:
    name: str
    directory: Path
    network: Network
    settings: dict[str, object]
    deaf_watchdog: bool = False
    """A build that is broken on purpose: its watchdog takes no notice of the end of the lease."""
    faked_clock: bool = False
    agent: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def vms(self) -> Path:
        return self.state / "qemu" / "vms"

    @property
    def clock(self) -> Path:
        return self.directory / "clock"

    def lay_out(self) -> None:
        """A bridge in the place of the namespace's own port, and the agent's settings."""
        address = self.network.add(self.name)
        inside = ("ip", "-n", self.name)
        command(*inside, "link", "add", BRIDGE, "type", "bridge")
        command(*inside, "address", "del", f"{address}/24", "dev", "eth0")
        command(*inside, "address", "add", f"{address}/24", "dev", BRIDGE)
        command(*inside, "link", "set", "eth0", "master", BRIDGE)
        command(*inside, "link", "set", BRIDGE, "up")
        self.directory.mkdir(mode=0o700)
        self.clock.write_text("+0\n")
        self._new_boot()
        document = {**self.settings, "host": self.name, "state_dir": str(self.state)}
        (self.directory / "agent.yaml").write_text(yaml.safe_dump(document))

    # -- processes -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.agent is not None and self.agent.poll() is None:
            return
        module = "chaos.deaf_watchdog" if self.deaf_watchdog else "controlplane.cli.main"
        argv = [sys.executable, "-m", module, "agent", "run", "--config", str(self.directory / "agent.yaml")]
        entered = ["ip", "netns", "exec", self.name, "sh", "-c", _ENTER, str(self.directory / "boot_id"), *argv]
        with (self.directory / "log").open("ab") as log:
            self.agent = subprocess.Popen(
                entered, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ(), start_new_session=True
            )

    def _environ(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FLINTLOCK_")}
        kept["PYTHONPATH"] = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests")))
        if self.faked_clock:
            kept["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parent / 'faketime'}"
            kept |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_CACHE_DURATION": "1",
            }
        return kept

    def pids(self, part: Part | None = None, *, uid: str = "") -> list[int]:
        """What runs here: all of it, or one part, and of QEMU perhaps the one of a microVM."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True).stdout
        found: list[int] = []
        for pid in map(int, listed.split()):
            with suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if part is None or (all(word in line for word in _WORDS[part]) and uid.encode() in line):
                    found.append(pid)
        return found

    def send(self, number: signal.Signals, part: Part | None = None, *, uid: str = "") -> list[int]:
        """Signal them. Raises LookupError when there is none; gives whom it reached."""
        pids = self.pids(part, uid=uid)
        if not pids:
            raise LookupError(f"no {part or 'process'} runs on {self.name}")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def end(self, part: Part | None = None) -> None:
        """kill -9, and wait until they are gone."""
        give_up = time.monotonic() + _GONE_S
        while pids := self.pids(part):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < give_up, f"{pids} on {self.name} do not end"
            time.sleep(0.02)
        if part in (None, "agent") and self.agent is not None:
            self.agent.wait()

    # -- power ---------------------------------------------------------------------------------------------------------

    def power_off(self) -> None:
        """Nothing says goodbye: the link is gone first, then everything at once."""
        self.network.unplug(self.name)
        self.end()

    def power_on(self, *, keep_state: bool = True) -> None:
        for device in self._taps():
            command("ip", "-n", self.name, "link", "delete", device)
        if not keep_state:
            shutil.rmtree(self.state)
        self._new_boot()
        self.network.plug(self.name)
        self.start()

    def _new_boot(self) -> None:
        (self.directory / "boot_id").write_text(f"{uuid.uuid4()}\n")

    def _taps(self) -> list[str]:
        shown = subprocess.run(
            ["ip", "-n", self.name, "-json", "link", "show"], capture_output=True, text=True, check=True
        ).stdout
        return [link["ifname"] for link in json.loads(shown) if link["ifname"].startswith("fl")]
