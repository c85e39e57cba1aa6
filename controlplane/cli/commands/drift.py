"""flintctl drift: what differs from the intent, for people, for programs, and for the reports that CI servers read.

One look at the cluster serves every format of one call, so that a pipeline's comment, its test report and its exit
code tell the same. Its own exit code 2 means drift and nothing else: a wrong command line ends with 1 here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from controlplane.cli import options, output
from controlplane.cli.commands import drift_watch
from controlplane.cli.drift import blocks, junit, markdown, report, sarif, table, terraform
from controlplane.cli.drift.classes import FAIL_ON_DEFAULT, FROM_PLAN, Class, FailOn
from controlplane.cli.drift.report import Finding, Report
from controlplane.cli.errors import DIFFERENCES, ERROR, CliError
from controlplane.cli.options import NamespaceOption
from controlplane.cli.output import OutputFormat
from controlplane.cli.values import Json, mapping


class DriftFormat(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"
    SARIF = "sarif"
    MARKDOWN = "markdown"


class DriftGroup(TyperGroup):
    """A wrong command line ends with 1, so that 2 means drift alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as refusal:
            refusal.exit_code = ERROR
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.TyperException as refusal:
            refusal.exit_code = ERROR
            raise


app = typer.Typer(cls=DriftGroup, invoke_without_command=True, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("watch")(drift_watch.watch)


@app.callback()
def drift(
    ctx: typer.Context,
    namespace: NamespaceOption = None,
    only: Annotated[
        list[Class] | None, typer.Option("--class", help="Only findings of this class; may be repeated.")
    ] = None,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code", "--detailed-exitcode", help="Exit with 0 without drift, 1 on an error, 2 when there is some."
        ),
    ] = False,
    fail_on: Annotated[
        list[FailOn] | None,
        typer.Option(
            "--fail-on",
            help="What counts as drift; may be repeated. Implies --exit-code. Else: drifted, changed_outside.",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Put a plan beside it: the output of `terraform show -json PLAN`."),
    ] = None,
    config_dir: Annotated[
        Path,
        typer.Option(
            "--config-dir", metavar="DIR", help="Terraform's root module: SARIF names the lines of its blocks."
        ),
    ] = Path(),
    everything: Annotated[bool, typer.Option("--all", help="List what is in sync, too.")] = False,
    form: Annotated[DriftFormat, typer.Option("--output", "-o", help="How to print the result.")] = DriftFormat.TABLE,
    write: Annotated[
        list[str] | None,
        typer.Option("--write", metavar="FORMAT=FILE", help="Write it to a file as well; may be repeated."),
    ] = None,
) -> None:
    """Compare intent with observation, field by field.

    \b
    Classes: drifted (differs; a plan shows it), unmanaged (found on a host, declared by nobody), unreachable (the host
    cannot be asked: a warning, never drift), progressing (being made so, or moving), in_sync; and with --plan
    changed_outside (of Terraform) and planned (by Terraform).

    \b
    Examples:
      flintctl drift --exit-code
      flintctl drift --fail-on drifted --fail-on unmanaged --write junit=drift.xml --write markdown=drift.md
      terraform show -json plan.out > plan.json; flintctl drift --plan plan.json -o sarif > drift.sarif
    """
    if ctx.invoked_subcommand is not None:
        given = [name for name in ctx.params if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")]
        if given:
            raise CliError(f"options of {ctx.invoked_subcommand} come after its name")
        return
    files = [_target(each) for each in write or ()]
    wanted = frozenset(only or Class)
    failing = frozenset(Class(each) for each in fail_on or ()) or FAIL_ON_DEFAULT
    if fail_on and (never := sorted(failing - wanted)):
        raise CliError(f"--fail-on {never[0]} can never be: --class leaves it out")
    if plan is None and (needing := sorted({*(only or ()), *map(Class, fail_on or ())} & FROM_PLAN)):
        raise CliError(f"{needing[0]} is known from a plan only", hint="name one with --plan")
    planned = terraform.read(plan) if plan is not None else None
    params: dict[str, str | list[str]] = {"namespace": namespace} if namespace else {}
    if only:
        # An empty list would mean all of them.
        params["class"] = sorted(wanted - FROM_PLAN) or [Class.DRIFTED]
    answer = options.client(ctx).get("/drift", params).body
    found = _findings(answer, planned, wanted, failing)
    look = _Look(found, answer, planned, config_dir, options.now_ms())
    for shape, path in files:
        _save(path, look.text(shape))
    if form in (DriftFormat.TABLE, DriftFormat.WIDE):
        table.show(found, mapping(answer, "summary"), look.now_ms, everything=everything)
    else:
        print(look.text(form))
    if (exit_code or fail_on) and found.fails:
        raise typer.Exit(DIFFERENCES)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the cluster, to be written in any format."""

    report: Report
    answer: Json
    plan: terraform.Plan | None
    config_dir: Path
    now_ms: int

    def text(self, form: DriftFormat) -> str:
        return _WRITERS[form](self)


def _as_document(form: OutputFormat) -> Callable[[_Look], str]:
    """What the API gave, as it is; with a plan, what it adds beside it."""

    def write(look: _Look) -> str:
        if look.plan is None:
            return output.dumped(look.answer, form)
        return output.dumped({**look.answer, "plan": terraform.as_document(look.plan)}, form)

    return write


_WRITERS: dict[DriftFormat, Callable[[_Look], str]] = {
    DriftFormat.JSON: _as_document(OutputFormat.JSON),
    DriftFormat.YAML: _as_document(OutputFormat.YAML),
    DriftFormat.JUNIT: lambda look: junit.write(look.report),
    DriftFormat.SARIF: lambda look: sarif.write(look.report, blocks.find(look.config_dir)),
    DriftFormat.MARKDOWN: lambda look: markdown.write(look.report),
}


def _findings(
    answer: Json, planned: terraform.Plan | None, wanted: frozenset[Class], failing: frozenset[Class]
) -> Report:
    found: list[Finding] = report.from_api(answer)
    if planned is not None:
        found = [*report.with_addresses(found, planned.addresses), *planned.findings]
    kept = tuple(each for each in found if each.klass in wanted)
    return Report(revision=int(answer.get("revision") or 0), findings=kept, fail_on=failing)


def _target(text: str) -> tuple[DriftFormat, Path]:
    name, separator, path = text.partition("=")
    if not separator or not path or name not in _WRITERS:
        known = ", ".join(sorted(_WRITERS))
        raise CliError(f"--write {text}: is not FORMAT=FILE with one of {known}")
    return DriftFormat(name), Path(path)


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise CliError(f"--write: {path} cannot be written: {error.strerror}") from None
