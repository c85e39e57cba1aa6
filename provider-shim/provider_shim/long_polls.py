"""Connections for requests that only wait, which another thread can end at once.

A long poll keeps its thread in the kernel until the control plane answers. Shutting the socket down wakes it with a
connection error; the client then finds that Terraform was interrupted. Requests that write never go over these: their
answers are waited for, since what they made must not be forgotten. Imports `requests`, so it is imported late.
"""

from __future__ import annotations

import socket
import threading
import weakref
from contextlib import suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection


class LongPolls(HTTPAdapter):
    """Mounted for `https://`; `end` is for good."""

    def __init__(self, **pools: Any) -> None:
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ended = False
        self._lock = threading.Lock()
        super().__init__(**pools)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        opened = self._opened

        class Connection(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                opened(self.sock)

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection  # pyright: ignore[reportAssignmentType] # urllib3 asks for a protocol that its own class does not fit

        self.poolmanager.pool_classes_by_scheme = {"https": Pool}

    def _opened(self, sock: Any) -> None:
        with self._lock:
            self._open.add(sock)
            if self._ended:
                _shut(sock)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for sock in self._open:
                _shut(sock)


def _shut(sock: socket.socket) -> None:
    # Below TLS: its own way of closing would change the connection under the thread that reads from it.
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
