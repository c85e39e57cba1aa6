"""The example files are what their systems accept, and the policy says what its comments promise."""

from __future__ import annotations

import sys
from subprocess import run
from typing import Any

import pytest
from acceptance.pipelines.checkout import EXAMPLES
from acceptance.pipelines.rego import evaluate

SCHEMAS = {
    "github-actions/drift.yml": ("--builtin-schema", "vendor.github-workflows"),
    "gitlab-ci/.gitlab-ci.yml": ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
}


def accepted(schema: tuple[str, ...], path: Any) -> tuple[bool, str]:
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(path)]
    done = run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_pipeline_fits_the_published_schema_of_its_system(name: str, tmp_path: Any) -> None:
    fits, told = accepted(SCHEMAS[name], EXAMPLES / name)
    assert fits, told
    broken = tmp_path / "broken.yml"
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    broken.write_text(text.replace("runs-on:", "runs_on:").replace("stage: detect", "stage: {}"), encoding="utf-8")
    assert accepted(SCHEMAS[name], broken)[0] is False


def change(*actions: str, before: Any = None, after: Any = None, kind: str = "flintlock_microvm") -> dict[str, Any]:
    values = {"actions": list(actions), "before": before, "after": after}
    return {"address": f'{kind}.web["a"]', "type": kind, "mode": "managed", "change": values}


KEPT = {"labels": {"team": "web"}, "drift_policy": "repair"}
PROTECTED = {"labels": {"team": "web", "protected": "true"}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], []),
        ([change("update", before=KEPT, after=KEPT)], []),
        ([change("delete", before=KEPT)] * 2, []),
        (
            [change("delete", before={**KEPT, "n": n}) for n in range(3)],
            ["this plan would destroy 3 microVMs; at most 2 at once"],
        ),
        ([change("delete", before=PROTECTED)], ['flintlock_microvm.web["a"] is protected: this plan would destroy it']),
        (
            [change("delete", "create", before=PROTECTED, after=PROTECTED)],
            ['flintlock_microvm.web["a"] is protected: this plan would destroy it'],
        ),
        (
            [change("create", after={"labels": None, "drift_policy": "repair"})],
            ['flintlock_microvm.web["a"] has no label `team`: nobody would be asked about it'],
        ),
        ([change("delete", before=PROTECTED, kind="flintlock_namespace")], []),
    ],
)
def test_the_policy_denies(changes: list[dict[str, Any]], told: list[str]) -> None:
    assert evaluate(EXAMPLES / "policy", {"resource_changes": changes}) == (told, [])


def test_the_policy_warns_of_what_does_not_heal() -> None:
    waits = change("no-op", after={**KEPT, "drift_policy": "report"})
    told = ['flintlock_microvm.web["a"] does not heal by itself: its drift waits for an approval']
    assert evaluate(EXAMPLES / "policy", {"resource_changes": [waits]}) == ([], told)
