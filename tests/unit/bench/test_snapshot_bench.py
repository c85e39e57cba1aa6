"""The benchmark of snapshots measures what it says, at a size that a test can wait for."""

from __future__ import annotations

from pathlib import Path

from bench.bench_snapshot import measure, table


async def test_a_small_run_gives_every_figure(tmp_path: Path) -> None:
    figures = await measure(tmp_path / "data", 3_000, 50.0, lambda line: None)
    full, changed, quiet = (figures[kind] for kind in ("full", "1 % changed", "load only"))
    assert isinstance(full, dict)
    assert isinstance(changed, dict)
    assert isinstance(quiet, dict)
    assert full["bytes"] > 500_000
    assert changed["bytes"] < full["bytes"]
    for each in (full, changed, quiet):
        assert each["writes"]["writes"] > 0
        assert each["writes"]["max_ms"] > 0
    text = table(figures)
    assert "3,000 objects" in text
    assert "| 1 % changed |" in text
