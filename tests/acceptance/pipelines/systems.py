"""The CI systems, as far as they matter here: each reads its own example file and runs the commands in it.

`detect` and `repair` are the jobs before and after the approval, with the variables that the system would give them.
`gate` is how the file asks for the approval. Steps that only the system itself can do (check out, upload, comment)
are named where they are left out.
"""

from __future__ import annotations

import configparser
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from acceptance.pipelines.checkout import EXAMPLES, Done, Machine

Tokens = Mapping[str, str]
"""FLINTLOCK_DETECT_TOKEN and FLINTLOCK_REPAIR_TOKEN."""


class System(ABC):
    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    @abstractmethod
    def detect(self, machine: Machine) -> Done:
        """Code 0: nothing to do; 2: drift, whose repair waits for the approval."""

    @abstractmethod
    def repair(self, machine: Machine) -> Done: ...

    @abstractmethod
    def gate(self) -> bool: ...


_INIT = "terraform init -input=false"


def _load(path: str) -> dict[Any, Any]:
    return yaml.safe_load((EXAMPLES / path).read_text(encoding="utf-8"))


class GitHub(System):
    """On a schedule: the comment under a pull request is for another event, and actions (`uses`) are GitHub's own."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens)
        self._jobs: dict[str, Any] = _load("github-actions/drift.yml")["jobs"]
        self._known = {"github.event_name": "schedule"}

    def detect(self, machine: Machine) -> Done:
        done = self._job("detect", machine)
        assert done.code == 0, done.output
        result = re.findall(r"^result=(\d+)$", (machine.directory / "output").read_text(), re.MULTILINE)
        self._known["needs.detect.outputs.result"] = result[-1]
        assert "# " in (machine.directory / "summary").read_text()
        return Done(int(result[-1]), done.output)

    def repair(self, machine: Machine) -> Done:
        assert self._holds(self._jobs["repair"]["if"])
        return self._job("repair", machine)

    def gate(self) -> bool:
        return bool(self._jobs["repair"]["environment"])

    def _job(self, name: str, machine: Machine) -> Done:
        output = ""
        for step in self._jobs[name]["steps"]:
            if "run" not in step or ("if" in step and not self._holds(step["if"])):
                continue
            done = machine.run(step["run"], dict(self._variables(step, machine)), shell="sh")
            output += done.output
            if done.code != 0:
                return Done(done.code, output)
        return Done(0, output)

    def _variables(self, step: dict[str, Any], machine: Machine) -> Iterator[tuple[str, str]]:
        yield "GITHUB_OUTPUT", str(machine.directory / "output")
        yield "GITHUB_STEP_SUMMARY", str(machine.directory / "summary")
        yield "FLINTLOCK_CA_FILE", str(machine.directory / "ca.crt")
        context = {f"secrets.{name}": value for name, value in self._tokens.items()}
        context["vars.FLINTLOCK_CA"] = Path(machine.variables["FLINTLOCK_CA_FILE"]).read_text()
        for name, value in step.get("env", {}).items():
            yield name, re.sub(r"\$\{\{ (\S+) \}\}", lambda found: context[found[1]], value)

    def _holds(self, condition: str) -> bool:
        for part in condition.split(" && "):
            name, operator, wanted = part.split(" ")
            if (self._known[name] == wanted.strip("'")) is not (operator == "=="):
                return False
        return True


class GitLab(System):
    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens)
        self._file = _load("gitlab-ci/.gitlab-ci.yml")

    def detect(self, machine: Machine) -> Done:
        done = self._job("detect", machine)
        assert done.code in (0, 1, self._file["detect"]["allow_failure"]["exit_codes"])
        return done

    def repair(self, machine: Machine) -> Done:
        return self._job("repair", machine)

    def gate(self) -> bool:
        merge_request, other = self._file["repair"]["rules"]
        return (merge_request["when"], other["when"]) == ("never", "manual")

    def _job(self, name: str, machine: Machine) -> Done:
        return machine.run("\n".join(self._file[name]["script"]), self._tokens)


class Jenkins(System):
    """A Jenkinsfile is Groovy: its stages, their credentials and their `sh` steps are found by their form."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens)
        text = (EXAMPLES / "jenkins" / "Jenkinsfile").read_text(encoding="utf-8")
        _, *parts = re.split(r"^\s+stage\('(\w+)'\)", text, flags=re.MULTILINE)
        self._stages = dict(zip(parts[::2], parts[1::2], strict=True))

    def detect(self, machine: Machine) -> Done:
        return self._stage("detect", machine)

    def repair(self, machine: Machine) -> Done:
        return self._stage("repair", machine)

    def gate(self) -> bool:
        return list(self._stages) == ["detect", "approve", "repair"] and " input " in self._stages["approve"]

    def _stage(self, name: str, machine: Machine) -> Done:
        stage = self._stages[name]
        (credential,) = re.findall(r"FLINTLOCK_TOKEN = credentials\('flintlock-(\w+)'\)", stage)
        (script,) = re.findall(r"'''(.*?)'''", stage, re.DOTALL)
        return machine.run(script, {"FLINTLOCK_TOKEN": self._tokens[f"FLINTLOCK_{credential.upper()}_TOKEN"]})


class Atlantis(System):
    """Its built-in steps are the commands that its documentation gives for them."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens)
        self._file = _load("atlantis/atlantis.yaml")
        (self._project,) = self._file["projects"]
        self._workflow = self._file["workflows"][self._project["workflow"]]

    def detect(self, machine: Machine) -> Done:
        machine.reports.mkdir(exist_ok=True)
        done = self._steps("plan", machine)
        return Done(2 if done.code == 0 and "Drift was found." in done.output else done.code, done.output)

    def repair(self, machine: Machine) -> Done:
        return self._steps("apply", machine)

    def gate(self) -> bool:
        return "approved" in self._project["apply_requirements"]

    def _steps(self, name: str, machine: Machine) -> Done:
        variables = {
            **self._tokens,
            "PLANFILE": str(machine.reports / "plan"),
            "SHOWFILE": str(machine.reports / "show"),
        }
        output = ""
        for step in self._workflow[name]["steps"]:
            if isinstance(step, dict) and "env" in step:
                wanted = step["env"]
                variables[wanted["name"]] = machine.run(wanted["command"], variables).output
                continue
            done = machine.run(self._script(step), variables, shell="sh", within=self._project["dir"])
            output += done.output
            if done.code != 0:
                return Done(done.code, output)
        return Done(0, output)

    def _script(self, step: Any) -> str:
        match step:
            case {"run": script}:
                return script
            case {"init": {"extra_args": extra}}:
                return " ".join([_INIT, *extra])
            case "plan":
                return 'terraform plan -input=false -refresh -out "$PLANFILE"'
            case "apply":
                return f'{_INIT} -backend-config="$BACKEND_CONFIG" && terraform apply -input=false "$PLANFILE"'
            case _:
                raise AssertionError(step)


class Systemd(System):
    """The units' own commands and environment files, in the checkout instead of /srv/fleet."""

    def detect(self, machine: Machine) -> Done:
        return self._start("flintlock-drift.service", machine)

    def repair(self, machine: Machine) -> Done:
        return self._start("flintlock-repair.service", machine)

    def gate(self) -> bool:
        """The timer starts detection alone, and nothing pulls the repair in."""
        timers = [path.stem for path in (EXAMPLES / "systemd").glob("*.timer")]
        return timers == ["flintlock-drift"] and not self._unit("flintlock-repair.service").has_section("Install")

    def _start(self, name: str, machine: Machine) -> Done:
        service = self._unit(name)["Service"]
        assert service["WorkingDirectory"] == "/srv/fleet"
        (job,) = re.findall(r"^/etc/flintlock/drift-(\w+)\.env$", service["EnvironmentFile"])
        command = [part.replace("/srv/fleet", ".") for part in shlex.split(service["ExecStart"])]
        return machine.run(shlex.join(command), {"FLINTLOCK_TOKEN": self._tokens[f"FLINTLOCK_{job.upper()}_TOKEN"]})

    def _unit(self, name: str) -> configparser.RawConfigParser:
        unit = configparser.RawConfigParser()
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(EXAMPLES / "systemd" / name, encoding="utf-8")
        return unit


SYSTEMS: dict[str, type[System]] = {
    "github-actions": GitHub,
    "gitlab-ci": GitLab,
    "jenkins": Jenkins,
    "atlantis": Atlantis,
    "systemd": Systemd,
}
