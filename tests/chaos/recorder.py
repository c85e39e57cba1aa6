"""Takes down what the witnesses say, with one monotonic clock.

One thread receives datagrams; another one follows the console files of every host, where a guest is still heard whose
host is cut off. What is read from a file was written no later than the file's time of change, which counts when it is
earlier than the look: a recorder that was kept waiting must not make a copy live longer than it did. Everything goes to
a file too, for whoever has to find out what happened.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from chaos import witness
from chaos.history import Sighting

_LOOK_S = 0.1
_WAIT_S = 0.2


class Recorder:
    """`consoles`: each host to the folder that holds its microVMs' folders. Use as a context."""

    def __init__(self, address: str, consoles: Mapping[str, Path], evidence: Path) -> None:
        self.place = f"{address}:{witness.PORT}"
        self._consoles = consoles
        self._evidence = evidence.open("w")
        self._seen: list[Sighting] = []
        self._lock = threading.Lock()
        self._read_to: dict[Path, tuple[int, int]] = {}
        """Console file to its inode and how far it was read."""
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, witness.PORT))
        self._socket.settimeout(_WAIT_S)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._receive, self._follow)]

    def __enter__(self) -> Recorder:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()
        self._evidence.close()

    def sightings(self, since_s: float = 0.0) -> list[Sighting]:
        with self._lock:
            return [each for each in self._seen if each.at_s >= since_s]

    def _receive(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                data = self._socket.recv(2048)
                self._take(data, time.monotonic(), None)

    def _follow(self) -> None:
        while not self._over.wait(_LOOK_S):
            for host, folder in self._consoles.items():
                for console in folder.glob("*/console.log"):
                    with suppress(FileNotFoundError):
                        self._read_on(host, console)

    def _read_on(self, host: str, console: Path) -> None:
        with console.open("rb") as file:
            inode, position = self._read_to.get(console, (0, 0))
            # Before the text is read: what is read may be older than this, and never is younger than the look.
            status = console.stat()
            if status.st_ino != inode:
                position = 0
            if status.st_size <= position:
                return
            file.seek(position)
            text = file.read(status.st_size - position)
        whole = text.rfind(b"\n") + 1
        self._read_to[console] = status.st_ino, position + whole
        changed_s = time.monotonic() - (time.time() - status.st_mtime)
        self._take(text[:whole], min(time.monotonic(), changed_s), host)

    def _take(self, text: bytes, at_s: float, host: str | None) -> None:
        for uid, nonce, count in witness.read(text):
            sighting = Sighting(uid, nonce, count, at_s, host)
            with self._lock:
                self._seen.append(sighting)
            self._evidence.write(json.dumps(sighting) + "\n")
        self._evidence.flush()
