"""flintctl auth: who this is, what it may do, and why not."""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.errors import ERROR
from controlplane.cli.options import LabelOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, mapping, objects, text
from controlplane.model.access import AccessKind, AccessSubjectKind, Verb

_KINDS = {kind.value.lower(): kind.value for kind in AccessKind if kind is not AccessKind.ANY}
_VERBS = [verb.value for verb in Verb if verb is not Verb.ANY]

app = options.new_app(
    """Access: who this is, what it may do, and why not.

\b
Examples:
  flintctl auth whoami                                 every role that the token has, and where from
  flintctl auth can-i declare microvm -n web           yes or no; exit code 0 or 1
  flintctl auth can-i delete host h1 --as token/ci     the same of another, by its role bindings
  flintctl auth why-not act microvm -n web             what is missing, and what would be enough
"""
)
VerbArgument = Annotated[str, typer.Argument(metavar="VERB", help=f"One of {', '.join(_VERBS)}.")]
KindArgument = Annotated[str, typer.Argument(metavar="KIND", help="Such as microvm, host or rolebinding.")]
NameArgument = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of one object.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Where; else everywhere.")]
As = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="[KIND/]NAME", help="Another: token/NAME (or NAME), user/NAME, group/NAME; by its bindings."
    ),
]


@app.command()
def whoami(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """Show who the token belongs to, and every role that it has."""
    found = options.client(ctx).get("/auth/whoami").body
    if output.machine_readable(form):
        output.dump(found, form)
        return
    subjects = ", ".join(f"{each.get('kind')} {each.get('name')}" for each in objects(found, "subjects"))
    output.pairs(
        [("Name", text(found.get("name"))), ("Subjects", subjects), ("Expires", text(found.get("expires_at")))]
    )
    print()
    rows = [[text(each.get("role")), _source(each), _where(each)] for each in objects(found, "roles")]
    output.table(["ROLE", "GIVEN BY", "NAMESPACES"], rows, empty="No roles: it may do nothing.")


@app.command("can-i")
def can_i(
    ctx: typer.Context,
    verb: VerbArgument,
    kind: KindArgument,
    name: NameArgument = None,
    namespace: Namespace = None,
    label: LabelOption = None,
    subject: As = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Say yes or no; the exit code is 0 or 1."""
    decision = _decision(ctx, verb, kind, name, namespace, label, subject)
    if output.machine_readable(form):
        output.dump(decision, form)
    else:
        print("yes" if decision.get("allowed") else "no")
    if not decision.get("allowed"):
        raise typer.Exit(ERROR)


@app.command("why-not")
def why_not(
    ctx: typer.Context,
    verb: VerbArgument,
    kind: KindArgument,
    name: NameArgument = None,
    namespace: Namespace = None,
    label: LabelOption = None,
    subject: As = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Explain the decision: what allows it, or what is missing."""
    decision = _decision(ctx, verb, kind, name, namespace, label, subject)
    if output.machine_readable(form):
        output.dump(decision, form)
        return
    if decision.get("allowed"):
        by = mapping(decision, "by")
        print(f"{decision.get('who')} may: role {by.get('role')}, given by {_source(by)}.")
        return
    print(f"{decision.get('who')} may not.")
    near: list[str] = decision.get("near") or []
    for reason in near:
        print(f"  {reason}")
    print(f"It needs {decision.get('would_allow')}.")


def _decision(
    ctx: typer.Context,
    verb: str,
    kind: str,
    name: str | None,
    namespace: str | None,
    labels: list[str] | None,
    subject: str | None,
) -> Json:
    if verb not in _VERBS:
        raise typer.BadParameter(f"{verb!r} is not one of {', '.join(_VERBS)}", param_hint="VERB")
    if kind.lower() not in _KINDS:
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(sorted(_KINDS))}", param_hint="KIND")
    asked = {"verb": verb, "kind": _KINDS[kind.lower()], "name": name, "namespace": namespace, "label": labels}
    if subject is not None:
        asked["as"] = subject if "/" in subject else f"{AccessSubjectKind.TOKEN.value}/{subject}"
    return options.client(ctx).get("/auth/decision", {key: value for key, value in asked.items() if value}).body


def _source(given: Json) -> str:
    return f"binding {given['binding']}" if given.get("binding") else "the credential itself"


def _where(given: Json) -> str:
    namespaces = given.get("namespaces")
    return "everywhere" if namespaces is None else ", ".join(namespaces)
