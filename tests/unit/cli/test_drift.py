"""flintctl drift against the real API: which formats it writes, what they say, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator
from junitparser import JUnitXml
from support.builders import report as reported
from support.builders import suspected
from unit.api.rig import Rig

from controlplane.cli.drift import markdown
from controlplane.cli.drift.classes import Class, FailOn
from controlplane.cli.drift.report import Difference, Finding, Report
from controlplane.model.resources import ObservedPower, Unmanaged

Cli = Callable[..., Any]
SARIF = Draft4Validator(json.loads((Path(__file__).parent / "data" / "sarif-2.1.0.json").read_text(encoding="utf-8")))
ADDRESS = 'flintlock_microvm.web["a"]'


@pytest.fixture
def running(api: Rig) -> Rig:
    """A host, a namespace and the microVM demo/web, which runs."""
    api.with_host()
    api.active()
    return api


@pytest.fixture
def drifted(running: Rig) -> Rig:
    running.report(power=ObservedPower.STOPPED, cause="process exited (signal 9)")
    return running


def change(address: str = ADDRESS, actions: tuple[str, ...] = ("update",), **values: Any) -> dict[str, Any]:
    return {
        "address": address,
        "mode": "managed",
        "type": address.partition(".")[0],
        "change": {"actions": list(actions), **values},
    }


def plan_file(directory: Path, **parts: Any) -> Path:
    path = directory / "plan.json"
    path.write_text(json.dumps({"format_version": "1.2", **parts}))
    return path


# -- exit codes --------------------------------------------------------------------------------------------------------


def test_two_means_drift_and_nothing_else(cli: Cli, running: Rig) -> None:
    assert cli("drift", "--exit-code").code == 0
    running.report(power=ObservedPower.STOPPED, cause="process exited (signal 9)")
    assert cli("drift").code == 0
    assert cli("drift", "--exit-code").code == cli("drift", "--detailed-exitcode").code == 2
    for wrong in (("--fail-on", "nonsense"), ("--fail-on", "unreachable"), ("--nonsense",), ("surplus",)):
        assert cli("drift", "--exit-code", *wrong).code == 1, wrong


def test_no_control_plane_is_an_error(cli: Cli, drifted: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLINTLOCK_TOKEN", "not-the-token")
    assert cli("drift", "--exit-code").code == 1


def test_what_fails_is_chosen(cli: Cli, drifted: Rig) -> None:
    assert cli("drift", "--fail-on", "unmanaged").code == 0
    assert cli("drift", "--fail-on", "unmanaged", "--fail-on", "drifted").code == 2
    assert cli("drift", "--class", "progressing", "--exit-code").code == 0
    refused = cli("drift", "--class", "progressing", "--fail-on", "drifted")
    assert (refused.code, "--class leaves it out" in refused.err) == (1, True)
    refused = cli("drift", "--fail-on", "planned")
    assert (refused.code, "name one with --plan" in refused.err) == (1, True)


def test_an_unreachable_host_is_a_warning_in_every_format(cli: Cli, drifted: Rig) -> None:
    drifted.do(suspected())
    every = [part for each in FailOn if each not in ("changed_outside", "planned") for part in ("--fail-on", each)]
    assert cli("drift", *every).code == 0
    (case,) = [case for suite in JUnitXml.fromstring(cli("drift", "-o", "junit").out) for case in suite][:1]
    assert [type(each).__name__ for each in case.result] == ["Skipped"]
    (result,) = json.loads(cli("drift", "-o", "sarif").out)["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("flintlock/unreachable", "warning")
    assert "That is no drift." in cli("drift", "-o", "markdown").out


# -- formats -----------------------------------------------------------------------------------------------------------


def test_the_table_and_documents_are_what_the_api_gave(cli: Cli, drifted: Rig) -> None:
    shown = cli("drift").out
    for told in ("MicroVM demo/web", "/spec/power_state", "process exited (signal 9)", "1 drifted"):
        assert told in shown
    document = json.loads(cli("drift", "-o", "json").out)
    assert document["summary"]["drifted"] == 1
    assert yaml.safe_load(cli("drift", "-o", "yaml").out) == document


def test_sarif_fits_the_published_schema(cli: Cli, drifted: Rig, tmp_path: Path) -> None:
    (tmp_path / "fleet.tf").write_text('# the fleet\nresource "flintlock_microvm" "web" {\n')
    uid = drifted.vm().meta.uid
    plan = plan_file(tmp_path, resource_changes=[change(actions=("no-op",), before={"uid": uid}, after={"uid": uid})])
    document = json.loads(cli("drift", "-o", "sarif", "--plan", str(plan)).out)
    SARIF.validate(document)
    (run,) = document["runs"]
    (result,) = run["results"]
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    assert rule["id"] == result["ruleId"] == "flintlock/drifted"
    assert rule["help"]["text"]
    assert result["level"] == "error"
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "fleet.tf", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 2},
    }
    assert location["logicalLocations"][0]["fullyQualifiedName"] == ADDRESS


def test_the_schema_finds_what_is_not_sarif(cli: Cli, drifted: Rig) -> None:
    document = json.loads(cli("drift", "-o", "sarif").out)
    document["runs"][0]["results"][0]["level"] = "fatal"
    assert not SARIF.is_valid(document)


def test_the_same_drift_keeps_its_fingerprint(cli: Cli, drifted: Rig) -> None:
    def prints() -> list[str]:
        (run,) = json.loads(cli("drift", "-o", "sarif").out)["runs"]
        return [each["partialFingerprints"]["flintlock/v1"] for each in run["results"]]

    before = prints()
    drifted.report(power=ObservedPower.PAUSED, cause="somebody paused it")
    assert prints() == before


def test_junit_has_a_case_for_each_object(cli: Cli, drifted: Rig) -> None:
    drifted.put_vm("waiting")
    (suite,) = JUnitXml.fromstring(
        cli("drift", "-o", "junit").out.removeprefix("<?xml version='1.0' encoding='utf-8'?>\n")
    )
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (3, 1, 1, 0)
    by_name = {case.name: [type(each).__name__ for each in case.result] for case in suite}
    assert by_name["MicroVM demo/web"] == ["Failure"]
    assert by_name["MicroVM demo/waiting"] == ["Skipped"]
    assert by_name[f"compared at revision {drifted.replica.state.revision}"] == []


def test_one_look_writes_several_files(cli: Cli, drifted: Rig, tmp_path: Path) -> None:
    answer = cli("drift", "--exit-code", "--write", "junit=drift.xml", "--write", "markdown=drift.md")
    assert (answer.code, "MicroVM demo/web" in answer.out) == (2, True)
    assert len(JUnitXml.fromfile(str(tmp_path / "drift.xml"))) == 1
    assert (tmp_path / "drift.md").read_text().startswith(markdown.MARKER)
    for wrong in ("junit", "junit=", "table=x", "junit=no/such/directory"):
        refused = cli("drift", "--write", wrong)
        assert (refused.code, "--write" in refused.err) == (1, True), wrong


def test_unmanaged_microvms_are_reported_with_their_host(cli: Cli, running: Rig) -> None:
    copy = Unmanaged(native_id="9", driver="simulated", uid="01OLD", namespace="demo", name="old", epoch=3, ours=True)
    running.do(reported(unmanaged=[copy]))
    assert cli("drift", "--exit-code").code == 0
    answer = cli("drift", "--fail-on", "unmanaged", "-o", "markdown")
    assert answer.code == 2
    assert "#### Unmanaged" in answer.out
    assert "`h1`" in answer.out


# -- Markdown ----------------------------------------------------------------------------------------------------------


def finding(name: str, **changes: str) -> Finding:
    differences = (Difference("/spec/vcpu", **{"desired": "1", "observed": "2", **changes}),)
    return Finding(klass=Class.DRIFTED, resource=name, identity=name, differences=differences)


def test_markdown_is_bounded_and_says_what_it_left_off() -> None:
    report = Report(7, tuple(finding(f"MicroVM demo/vm{number}") for number in range(5_000)), frozenset())
    text = markdown.write(report)
    assert len(text) <= markdown.LIMIT
    shown = text.count("MicroVM demo/vm")
    assert f"\n{5_000 - shown} more lines are left off here" in text
    assert "5000 drifted" in text


def test_nothing_in_markdown_becomes_markup() -> None:
    hostile = finding("MicroVM demo/web", cause="`|@everyone [x](http://evil) <img>|`")
    row = markdown.write(Report(7, (hostile,), frozenset())).splitlines()[-1]
    assert row.endswith("| `'¦@everyone [x](http://evil) <img>¦'` |")
    assert row.count("|") == 7


# -- a plan beside it --------------------------------------------------------------------------------------------------


def test_a_plan_is_put_beside_the_drift(cli: Cli, drifted: Rig, tmp_path: Path) -> None:
    uid = drifted.vm().meta.uid
    here = {"uid": uid, "vcpu": 1, "power_state": "running"}
    plan = plan_file(
        tmp_path,
        resource_drift=[change(before=here, after={**here, "power_state": "stopped"})],
        resource_changes=[
            change(before={**here, "power_state": "stopped"}, after=here),
            change("flintlock_namespace.new", ("create",), before=None, after={"name": "new"}),
            change("flintlock_namespace.same", ("no-op",), before={}, after={}),
            {**change("data.flintlock_drift.all", ("read",)), "mode": "data"},
        ],
    )
    table = cli("drift", "--plan", str(plan))
    assert table.code == 0
    assert ADDRESS in next(line for line in table.out.splitlines() if line.startswith("drifted"))
    document = json.loads(cli("drift", "--plan", str(plan), "-o", "json").out)
    assert document["plan"]["addresses"] == {uid: ADDRESS}
    assert document["plan"]["changed_outside"] == [
        {
            "address": ADDRESS,
            "actions": ["update"],
            "fields": [{"pointer": "/power_state", "desired": "running", "observed": "stopped"}],
        }
    ]
    assert [(each["address"], each["actions"]) for each in document["plan"]["planned"]] == [
        (ADDRESS, ["update"]),
        ("flintlock_namespace.new", ["create"]),
    ]
    SARIF.validate(json.loads(cli("drift", "--plan", str(plan), "-o", "sarif").out))
    assert cli("drift", "--plan", str(plan), "--fail-on", "planned").code == 2


def test_what_was_changed_outside_of_terraform_is_drift(cli: Cli, running: Rig, tmp_path: Path) -> None:
    outside = change("flintlock_namespace.demo", before={"max_microvms": 5}, after={"max_microvms": 6})
    plan = plan_file(tmp_path, resource_drift=[outside])
    assert cli("drift", "--exit-code", "--plan", str(plan)).code == 2
    assert cli("drift", "--fail-on", "drifted", "--plan", str(plan)).code == 0


def test_sensitive_values_are_never_shown(cli: Cli, running: Rig, tmp_path: Path) -> None:
    planned = change(
        before={"metadata": {"token": "old-secret"}, "list": ["old-secret"], "next": "x"},
        after={"metadata": {"token": "new-secret"}, "list": ["new-secret"], "next": None},
        before_sensitive={"metadata": {"token": True}},
        after_sensitive={"metadata": True, "list": [True]},
        after_unknown={"next": True},
    )
    plan = plan_file(tmp_path, resource_changes=[planned], resource_drift=[planned])
    for form in ("table", "json", "yaml", "junit", "sarif", "markdown"):
        shown = cli("drift", "--plan", str(plan), "-o", form).out
        assert "secret" not in shown, form
        assert "(sensitive)" in shown, form
        assert "(known after apply)" in shown, form


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "/: expected `object`, got `array`"),
        ('{"format_version": "2.0"}', "/format_version: '2.0' is not known"),
        ('{"format_version": "1.2", "errored": true}', "/errored: the plan failed"),
        (
            '{"format_version": "1.2", "resource_changes": [{"address": 1}]}',
            "/resource_changes/0/address: expected `str`",
        ),
        (
            '{"format_version": "1.2", "resource_drift": [{"address": "a", "type": "t"}]}',
            "missing required field `change`",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(cli: Cli, running: Rig, tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    refused = cli("drift", "--exit-code", "--plan", str(path))
    assert refused.code == 1
    assert told in refused.err


def test_a_plan_that_is_not_there_is_refused(cli: Cli, running: Rig) -> None:
    refused = cli("drift", "--exit-code", "--plan", "none.json")
    assert (refused.code, "cannot be read" in refused.err) == (1, True)
