"""The parent of a node's processes keeps trying, whatever keeps a child from starting."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from controlplane import supervisor
from controlplane.supervisor import EX_CONFIG, Supervisor


async def test_a_child_that_cannot_be_started_now_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork may fail for lack of memory or descriptors; here the program itself is missing for a while."""
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.05,))
    program = tmp_path / "child"
    refuses = f"import sys; sys.exit({EX_CONFIG})"
    running = asyncio.create_task(Supervisor({"child": [str(program), "-c", refuses]}).run())
    done, _ = await asyncio.wait([running], timeout=0.3)
    assert not done
    program.symlink_to(sys.executable)
    async with asyncio.timeout(20):
        assert await running == EX_CONFIG
