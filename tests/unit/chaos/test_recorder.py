"""The recorder takes down what witnesses say, whole lines alone, no later than they can have been said."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from chaos import witness
from chaos.history import Sighting
from chaos.recorder import Recorder
from support.cluster import within

NONCE = "21ce7fd3-6d1e-4376-a1f0-83d4caa60346"


def test_lines_of_consoles_and_datagrams_are_read() -> None:
    text = f"flintlock: ready\r\nwitness vm {NONCE} 7\r\n<13>Nov 26 07:34:43 root: witness vm {NONCE} 8".encode()
    assert witness.read(text) == [("vm", NONCE, 7), ("vm", NONCE, 8)]
    assert witness.read(b"witness vm 21ce 7\n") == []


def test_console_and_network_are_taken_down_once_each(tmp_path: Path) -> None:
    console = tmp_path / "h1" / "vm" / "console.log"
    console.parent.mkdir(parents=True)
    console.write_text(f"witness vm {NONCE} 1\nwitness vm {NONCE} 1")
    hour_ago_s = time.time() - 3600
    os.utime(console, (hour_ago_s, hour_ago_s))
    began_s = time.monotonic()

    def seen(count: int) -> list[Sighting] | None:
        found = recorder.sightings(float("-inf"))
        return found if len(found) >= count else None

    with Recorder("127.0.0.1", {"h1": tmp_path / "h1"}, tmp_path / "sightings.jsonl") as recorder:
        (first,) = within(5, lambda: seen(1), "the console is read")
        assert (first.count, first.host) == (1, "h1"), "half a line is no count"
        assert first.at_s < began_s - 3500, "it was written an hour ago"
        with console.open("a") as file:
            file.write(f"2\nwitness vm {NONCE} 13\n")
        assert [each.count for each in within(5, lambda: seen(3), "it is read on")] == [1, 12, 13]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
            guest.sendto(f"<13>root: witness vm {NONCE} 14".encode(), ("127.0.0.1", witness.PORT))
        last = within(5, lambda: seen(4), "the datagram is heard")[-1]
        assert (last.count, last.host) == (14, None)
        assert began_s < last.at_s <= time.monotonic()
    assert len((tmp_path / "sightings.jsonl").read_text().splitlines()) == 4
