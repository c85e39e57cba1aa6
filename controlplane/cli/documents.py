"""Resources in files: what `apply -f` and `delete -f` read.

A document is `{kind, name, namespace?, labels?, annotations?, spec, sensitive_metadata?}` in YAML or JSON, several to
a file; a list or `{"items": [...]}` of such documents works too. What only the API writes (uid, revision, status, ...)
is dropped, so that the output of `flintctl ... show -o yaml` can be applied again. Errors name file, document and
field.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.cli.errors import CliError
from controlplane.cli.values import Json, mapping
from controlplane.strict_yaml import MAX_BYTES, YamlError, load_all

ORDER = (
    "Namespace",
    "PlacementPolicy",
    "FailoverPolicy",
    "GCPolicy",
    "Host",
    "MicroVM",
    "MicroVMGroup",
    "Role",
    "RoleBinding",
)
"""Kinds in the order in which they are declared: what others refer to comes first. Deletion goes the other way."""

PATHS = {
    "Namespace": "/namespaces",
    "PlacementPolicy": "/placementpolicies",
    "FailoverPolicy": "/failoverpolicies",
    "GCPolicy": "/gcpolicies",
    "Host": "/hosts",
    "Role": "/roles",
    "RoleBinding": "/rolebindings",
}
BODY = ("labels", "annotations", "spec", "sensitive_metadata")
"""What of a document the body of a PUT holds."""
NAMESPACED = {"MicroVM": "microvms", "MicroVMGroup": "microvmgroups"}
_WRITTEN = {"kind", "name", "namespace", *BODY}
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Document:
    source: str
    """File, and which document in it: for messages."""
    resource: Json

    @property
    def kind(self) -> str:
        return self.resource["kind"]

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.kind, self.resource.get("namespace") or "", self.resource["name"])

    @property
    def label(self) -> str:
        kind, namespace, name = self.key
        return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"

    @property
    def path(self) -> str:
        kind, namespace, name = self.key
        if kind in NAMESPACED:
            return f"/namespaces/{namespace}/{NAMESPACED[kind]}/{name}"
        return f"{PATHS[kind]}/{name}"


def read(sources: Sequence[str], *, namespace: str) -> list[Document]:
    """Every document of every source (file, directory, or `-`), in order of declaration. Raises CliError."""
    documents: list[Document] = []
    for name, content in _texts(sources):
        try:
            loaded = load_all(content)
        except YamlError as error:
            raise CliError(f"{name}: {error}") from None
        for number, document in enumerate(_flatten(loaded), start=1):
            where = name if len(loaded) == 1 and number == 1 else f"{name} (document {number})"
            documents.append(Document(where, _check(where, document, namespace)))
    if not documents:
        raise CliError(f"{', '.join(sources)}: there is no resource in it")
    seen: dict[tuple[str, str, str], str] = {}
    for document in documents:
        if document.key in seen:
            raise CliError(f"{document.source}: {document.label} is declared already in {seen[document.key]}")
        seen[document.key] = document.source
    return sorted(documents, key=lambda document: ORDER.index(document.kind))


def _texts(sources: Sequence[str]) -> Iterable[tuple[str, str]]:
    for source in sources:
        if source == "-":
            yield "(standard input)", sys.stdin.read(MAX_BYTES + 1)
            continue
        path = Path(source)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
            if not files:
                raise CliError(f"{source}: the directory holds no {', '.join(_SUFFIXES)} file")
        else:
            files = [path]
        for file in files:
            try:
                yield str(file), file.read_text()
            except OSError as error:
                raise CliError(f"{file}: {error.strerror}") from None
            except UnicodeDecodeError as error:
                raise CliError(f"{file}: not UTF-8 text (byte {error.start})") from None


def _flatten(loaded: Iterable[Any]) -> Iterable[Any]:
    for document in loaded:
        if isinstance(document, list):
            yield from _flatten(document)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(document, dict) and "kind" not in document and isinstance(document.get("items"), list):  # pyright: ignore[reportUnknownMemberType]
            yield from _flatten(document["items"])  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield document


def _check(where: str, document: object, namespace: str) -> Json:
    if not isinstance(document, dict):
        raise CliError(f"{where}: must be a mapping with kind, name and spec, not {type(document).__name__}")
    fields = mapping(document)
    kind = fields.get("kind")
    if kind is None:
        raise CliError(f"{where}: /kind is required: one of {', '.join(ORDER)}")
    if kind not in ORDER:
        raise CliError(f"{where}: /kind: {kind!r} is not one of {', '.join(ORDER)}")
    if not isinstance(fields.get("name"), str) or not fields["name"]:
        raise CliError(f"{where}: /name is required, as text")
    # What has a uid came from the API, and everything else in it is the API's to write.
    unknown = [] if "uid" in fields else sorted(set(fields) - _WRITTEN)
    if unknown:
        known = ", ".join(sorted(_WRITTEN))
        raise CliError(f"{where}: /{unknown[0]}: not a field of a resource; there are {known}")
    resource = {key: value for key, value in fields.items() if key in _WRITTEN and value is not None}
    if kind in NAMESPACED:
        resource.setdefault("namespace", namespace)
    elif "namespace" in resource:
        raise CliError(f"{where}: /namespace: a {kind} is in no namespace")
    for part in BODY:
        if part in resource and not isinstance(resource[part], dict):
            raise CliError(f"{where}: /{part}: must be a mapping")
    for part in ("name", "namespace"):
        text = resource.get(part)
        if text is not None and (not isinstance(text, str) or not text.replace("-", "").isalnum()):
            raise CliError(f"{where}: /{part}: {text!r} must be lower-case letters, digits and '-'")
    resource.setdefault("spec", {})
    return resource
