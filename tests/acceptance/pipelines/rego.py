"""Runs the policy as `conftest test --policy DIR FILE` does, by a Rego engine that PyPI has: conftest is a Go program.

Called as a program it takes exactly that command line, so that the pipelines' own commands find it under conftest's
name. It is the same rules on the same input; what is not tested is conftest itself.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from regopy import Interpreter


def evaluate(policy: Path, document: Any) -> tuple[list[str], list[str]]:
    """What `deny` and `warn` of package main say about `document`, each sorted."""
    engine = Interpreter()
    for path in sorted(policy.glob("*.rego")):
        engine.add_module(path.stem, path.read_text(encoding="utf-8"))
    engine.set_input(document)
    return _of(engine, "deny"), _of(engine, "warn")


def _of(engine: Interpreter, rule: str) -> list[str]:
    # regopy 1.5 does not escape the quotes of what it gives back, and the addresses of Terraform have quotes.
    encoded = engine.query(f'base64.encode(concat("\\n", data.main.{rule}))')[0].expressions[0]
    return sorted(base64.b64decode(encoded).decode().splitlines())


def main(arguments: list[str]) -> int:
    command, option, policy, file = arguments
    assert (command, option) == ("test", "--policy"), arguments
    denied, warned = evaluate(Path(policy), json.loads(Path(file).read_text(encoding="utf-8")))
    sys.stdout.writelines([*(f"WARN - {each}\n" for each in warned), *(f"FAIL - {each}\n" for each in denied)])
    return 1 if denied else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
