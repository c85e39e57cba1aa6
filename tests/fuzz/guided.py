"""The same targets, guided by coverage: python -m tests.fuzz.guided [--minutes 3] [--only NAME]

Needs atheris, which `make fuzz-guided` puts into a folder of its own. libFuzzer ends the process that it runs in, so
each target gets one, and its share of the time. What it found worth keeping stays in .work/fuzz/TARGET and is where the
next run begins; an input that raises what it may not is written beside it and printed, and the run ends with 1.
"""

# ruff: noqa: T201 - a command that prints a tally
from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import atheris

with atheris.instrument_imports(include=["controlplane"]):
    from fuzz.targets import TARGETS

CORPUS = Path(".work/fuzz")
_DONE = re.compile(r"^Done (\d+) runs|cov: (\d+)", re.MULTILINE)


def _folder(name: str) -> Path:
    return CORPUS / name.replace(" ", "-")


def _fuzz(name: str, seconds: float) -> None:
    """Does not return."""
    corpus = _folder(name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(TARGETS[name].samples):
        (corpus / f"sample-{number}").write_bytes(sample)
    prefix = f"-artifact_prefix={corpus.parent}/{corpus.name}."
    arguments = [sys.argv[0], str(corpus), prefix, f"-max_total_time={seconds:.0f}", "-max_len=65536", "-verbosity=1"]
    atheris.Setup(arguments, TARGETS[name].try_one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--only", choices=list(TARGETS))
    parser.add_argument("--here", choices=list(TARGETS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [options.only] if options.only else list(TARGETS)
    seconds = max(options.minutes * 60 / len(names), 2)
    if options.here:
        _fuzz(options.here, options.minutes * 60)
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz.guided", "--here", name, "--minutes", str(seconds / 60)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode:
            print(f"{name}: a fault\n{said[-3000:]}")
            return 1
        found = [match.groups() for match in _DONE.finditer(said)]
        runs = next((runs for runs, _ in reversed(found) if runs), "?")
        covered = next((covered for _, covered in reversed(found) if covered), "?")
        kept = len(list(_folder(name).iterdir()))
        print(f"{name:<24} {runs:>9} inputs, {covered:>6} edges, {kept:>5} kept", flush=True)
    print("no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
