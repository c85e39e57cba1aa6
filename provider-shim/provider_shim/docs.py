"""Writes the provider's documentation from its schemas, the templates and the examples.

`python -m provider_shim.docs` writes `docs/` beside `templates/`; with `--check` it writes nothing and fails if
something would change. The pages have the Terraform registry's layout, and the same input always gives the same
bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from provider_shim.framework.function import Function
from provider_shim.framework.resource import Resource
from provider_shim.framework.schema import Attribute, Block, Nested, Schema
from provider_shim.framework.types import ListOf, MapOf, ObjectOf, Primitive, SetOf, TupleOf, Type
from provider_shim.resources.provider import FlintlockProvider

PROJECT = Path(__file__).resolve().parent.parent
_EFFECTS = {"restart": "Changing it restarts the guest.", "replace": "Changing it replaces the resource."}
_BLOCK_WORDS = {"single": "Block", "list": "Blocks", "set": "Set of Blocks", "map": "Blocks by Label"}
_WORDS = {"string": "String", "number": "Number", "bool": "Boolean", "dynamic": "Dynamic"}


def pages(templates: Path, examples: Path) -> Iterator[tuple[str, str]]:
    """Path below `docs/` and text of every page."""
    provider = FlintlockProvider()
    yield "index.md", _page(templates / "index.md", "flintlock", provider.schema, examples / "provider", "provider.tf")
    for name, resource in sorted(provider.resources.items()):
        own = templates / f"{name}.md"
        template = own if own.exists() else templates / "resource.md"
        text = _page(template, name, resource.schema, examples / "resources" / name, "resource.tf")
        text = text.replace("{{ import }}", _import(resource, examples / "resources" / name / "import.sh"))
        yield f"resources/{name.removeprefix('flintlock_')}.md", text
    for name, source in sorted(provider.data_sources.items()):
        folder = examples / "data-sources" / name
        text = _page(templates / "data-source.md", name, source.schema, folder, "data-source.tf")
        yield f"data-sources/{name.removeprefix('flintlock_')}.md", text
    for name, listing in sorted(provider.list_resources.items()):
        folder = examples / "list-resources" / name
        text = _page(templates / "list-resource.md", name, listing.schema, folder, "list-resource.tfquery.hcl")
        yield f"list-resources/{name.removeprefix('flintlock_')}.md", text
    for name, function in sorted(provider.functions.items()):
        yield f"functions/{name}.md", _function_page(templates / "function.md", function, examples / "functions" / name)
    for name, ephemeral in sorted(provider.ephemeral_resources.items()):
        folder = examples / "ephemeral-resources" / name
        template = templates / "ephemeral-resource.md"
        text = _page(template, name, ephemeral.schema, folder, "ephemeral-resource.tf")
        yield f"ephemeral-resources/{name.removeprefix('flintlock_')}.md", text
    for name, action in sorted(provider.actions.items()):
        folder = examples / "actions" / name
        text = _page(templates / "action.md", name, action.schema, folder, "action.tf")
        yield f"actions/{name.removeprefix('flintlock_')}.md", text


def _page(template: Path, name: str, schema: Schema, examples: Path, example: str) -> str:
    parts = {"name": name, "description": schema.description, "schema": schema_text(schema)}
    return _filled(template, {**parts, "example": _code(examples / example)})


def _function_page(template: Path, function: Function, examples: Path) -> str:
    parts = {"name": function.name, "summary": function.summary, "description": function.description}
    return _filled(
        template, {**parts, "example": _code(examples / "function.tf"), "signature": signature_text(function)}
    )


def _code(path: Path) -> str:
    return f"```terraform\n{path.read_text(encoding='utf-8').rstrip()}\n```"


def _filled(template: Path, parts: Mapping[str, str]) -> str:
    text = template.read_text(encoding="utf-8")
    for key, value in parts.items():
        text = text.replace(f"{{{{ {key} }}}}", value)
    return text


def signature_text(function: Function) -> str:
    """The sections `## Signature` and `## Arguments`."""
    told = [f"{each.name} {_type_words(each.type).lower()}" for each in function.parameters]
    lines = [f"1. `{each.name}` ({_type_words(each.type)}) {each.description}" for each in function.parameters]
    if (rest := function.variadic) is not None:
        told.append(f"{rest.name} {_type_words(rest.type).lower()}...")
        lines.append(f"1. `{rest.name}` (Variadic, {_type_words(rest.type)}) {rest.description}")
    head = f"{function.name}({', '.join(told)}) {_type_words(function.returns).lower()}"
    return "\n".join(["## Signature", "", f"```text\n{head}\n```", "", "## Arguments", "", *lines])


def _import(resource: Resource, script: Path) -> str:
    names = "\n".join(f"    {name} = ..." for name in resource.identity)
    return (
        f"```shell\n{script.read_text(encoding='utf-8').rstrip()}\n```\n\n"
        "From Terraform 1.12 on also by identity:\n\n"
        f"```terraform\nimport {{\n  to = {resource.type_name}.example\n  identity = {{\n{names}\n  }}\n}}\n```"
    )


def schema_text(schema: Schema) -> str:
    """The `## Schema` section: attributes by kind, then each nested object in its own part."""
    lines = ["## Schema", ""]
    nested: list[tuple[str, Mapping[str, Attribute]]] = []
    lines += _groups(schema.attributes, "", nested, schema.blocks)
    for name, block in sorted(schema.blocks.items()):
        nested.append((name, block.attributes))
    while nested:
        path, attributes = nested.pop(0)
        lines += [f'<a id="{_anchor(path)}"></a>', f"### Nested schema for `{path}`", ""]
        lines += _groups(attributes, f"{path}.", nested, {})
    return "\n".join(lines).rstrip()


def _groups(
    attributes: Mapping[str, Attribute],
    prefix: str,
    nested: list[tuple[str, Mapping[str, Attribute]]],
    blocks: Mapping[str, Block],
) -> list[str]:
    groups: dict[str, list[str]] = {"Required": [], "Optional": [], "Read-only": []}
    for name, each in sorted(attributes.items()):
        settable = each.optional or each.default is not None
        groups["Required" if each.required else "Optional" if settable else "Read-only"].append(
            _line(name, each, prefix)
        )
        if isinstance(each.type, Nested):
            nested.append((f"{prefix}{name}", each.type.attributes))
    for name, block in sorted(blocks.items()):
        groups["Optional"].append(
            f"- `{name}` ({_BLOCK_WORDS[block.mode]}) {block.description} (see [below](#{_anchor(f'{prefix}{name}')}))"
        )
    lines: list[str] = []
    for title, entries in groups.items():
        if entries:
            lines += [f"{title}:", "", *entries, ""]
    return lines


def _line(name: str, each: Attribute, prefix: str) -> str:
    kind = _nested_words(each.type) if isinstance(each.type, Nested) else _type_words(each.type)
    words = [f"- `{name}` ({kind}{', Sensitive' if each.sensitive else ''}{', Write-only' if each.write_only else ''})"]
    if each.deprecated:
        words.append(f"**Deprecated:** {each.deprecated}")
    words.append(each.description)
    if each.default is not None:
        shown = str(each.default).lower() if isinstance(each.default, bool) else each.default
        words.append(f"Default: `{shown}`.")
    if each.on_change in _EFFECTS:
        words.append(_EFFECTS[each.on_change])
    if isinstance(each.type, Nested):
        words.append(f"(see [below](#{_anchor(f'{prefix}{name}')}))")
    return " ".join(words)


def _anchor(path: str) -> str:
    return "nested--" + path.replace(".", "--")


def _nested_words(nested: Nested) -> str:
    return {
        "single": "Attributes",
        "list": "List of Attributes",
        "set": "Set of Attributes",
        "map": "Map of Attributes",
    }[nested.mode]


def _type_words(kind: Type) -> str:
    match kind:
        case Primitive(name):
            return _WORDS[name]
        case ListOf(element):
            return f"List of {_type_words(element)}"
        case SetOf(element):
            return f"Set of {_type_words(element)}"
        case MapOf(element):
            return f"Map of {_type_words(element)}"
        case ObjectOf() | TupleOf():
            return "Object"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m provider_shim.docs", description="Write the provider's docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    parser.add_argument("--project", type=Path, default=PROJECT, help="directory that holds templates/ and docs/")
    parser.add_argument("--examples", type=Path, help="directory of the examples (default: beside the project)")
    chosen = parser.parse_args(arguments)
    project: Path = chosen.project
    wanted = dict(pages(project / "templates", chosen.examples or project.parent / "examples"))
    docs = project / "docs"
    present = {str(path.relative_to(docs)): path.read_text(encoding="utf-8") for path in docs.rglob("*.md")}
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if chosen.check:
        sys.stderr.writelines(f"provider docs are stale: {name}\n" for name in stale)
        return 1 if stale else 0
    for name in stale:
        path = docs / name
        if name not in wanted:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
