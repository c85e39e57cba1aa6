"""The messages of tfplugin6 up to 6.10, without a protoc run.

tfprovider brings the descriptor of 6.4. A text table (`tfplugin6.txt`) says what later minor versions added. Both are
put together here in a *private* descriptor pool: a second file of the same package in the default pool is a duplicate
symbol.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from tfplugin_proto import tfplugin6_4_pb2

PACKAGE = "tfplugin6"
SERVICE = "tfplugin6.Provider"
TABLE = Path(__file__).with_name("tfplugin6.txt")

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int64": _Field.TYPE_INT64,
}


@dataclass(frozen=True, slots=True)
class Method:
    """One remote call: its name, message classes, and whether the answer is a stream."""

    name: str
    request: type[Any]
    response: type[Any]
    streams: bool


class _Builder:
    """Adds lines of the table to the descriptor of 6.4."""

    def __init__(self) -> None:
        self.file = descriptor_pb2.FileDescriptorProto()
        self.file.ParseFromString(tfplugin6_4_pb2.DESCRIPTOR.serialized_pb)
        self.file.name = "flintlock/tfplugin6.proto"
        self.file.dependency.append(timestamp_pb2.DESCRIPTOR.name)

    def add_line(self, line: str) -> None:
        head, *rest = line.split()
        if head == "rpc":
            self._add_rpc(rest)
        elif head == "enum":
            self._add_enum(rest[0], rest[1:])
        else:
            message = self._message(head)
            for text in rest:
                self._add_field(message, head, text)

    def _message(self, path: str) -> descriptor_pb2.DescriptorProto:
        container = self.file.message_type
        message: descriptor_pb2.DescriptorProto | None = None
        for name in path.split("."):
            message = next((known for known in container if known.name == name), None)
            if message is None:
                message = container.add(name=name)
            container = message.nested_type
        assert message is not None
        return message

    def _add_rpc(self, words: list[str]) -> None:
        name, request, *answer = words
        method = self.file.service[0].method.add(name=name, server_streaming=answer[0] == "stream")
        method.input_type = f".{PACKAGE}.{request}"
        method.output_type = f".{PACKAGE}.{answer[-1]}"

    def _add_enum(self, path: str, values: list[str]) -> None:
        outer, _, name = path.rpartition(".")
        enum = self._message(outer).enum_type.add(name=name)
        for value in values:
            label, _, number = value.partition("=")
            enum.value.add(name=label, number=int(number))

    def _add_field(self, message: descriptor_pb2.DescriptorProto, path: str, text: str) -> None:
        name, _, rest = text.partition("=")
        number, _, kind = rest.partition(":")
        field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
        if kind.startswith("map:"):
            entry = message.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
            _set_type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), kind[4:])
            field.label = _Field.LABEL_REPEATED
            field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{path}.{entry.name}"
            return
        marker = kind[0] if kind[0] in "*?|" else ""
        _set_type(field, kind[len(marker) :])
        if marker == "*":
            field.label = _Field.LABEL_REPEATED
        elif marker == "?":
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
        elif marker == "|":
            if not message.oneof_decl:
                message.oneof_decl.add(name="type")
            field.oneof_index = 0


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    is_enum = kind.startswith("enum:")
    field.type = _Field.TYPE_ENUM if is_enum else _Field.TYPE_MESSAGE
    name = kind.removeprefix("enum:")
    field.type_name = name if name.startswith(".") else f".{PACKAGE}.{name}"


def descriptor() -> bytes:
    """A serialized FileDescriptorProto of everything that is spoken."""
    builder = _Builder()
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            builder.add_line(line)
    return builder.file.SerializeToString()


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(descriptor())
    return pool


@cache
def message(name: str) -> type[Any]:
    """The class of `tfplugin6.NAME`; nested names are dotted."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


def methods() -> list[Method]:
    """Every call of the service, in the protocol's order."""
    service: Any = _pool().FindServiceByName(SERVICE)
    return [
        Method(
            method.name,
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            bool(method.server_streaming),
        )
        for method in service.methods
    ]
