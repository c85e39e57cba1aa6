"""Plans a stack with a real Terraform: the runtime that allows providers to defer in released builds.

`terraform plan -allow-deferral` exists in experimental builds only. The stacks runtime, which `terraform rpcapi` serves
over gRPC as a plugin does, always allows it. Of its messages, `rpcapi.proto` has what is used here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from acceptance.terraform.runner import LIBRARY_MAIN, Terraform
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

COOKIE = {"TERRAFORM_RPCAPI_COOKIE": "fba0991c9bcd453982f0d88e2da95940"}
ADDRESS = "git::https://example.com/stack.git"
"""Where the stack is said to come from; it is read from the bundle's folder."""
CALL_S = 60.0
END_S = 20.0


@dataclass(frozen=True)
class Plan:
    planned: frozenset[str]
    """Addresses, with their component."""
    deferred: Mapping[str, str]
    """Address -> why."""
    errors: tuple[str, ...]


def plan_stack(tf: Terraform, files: Mapping[str, str], providers: Path) -> Plan:
    """The plan of the stack that `files` are. `tf` is a directory that was initialised with its providers, which are in
    the mirror `providers`."""
    bundle = tf.workdir / "bundle"
    for name, text in files.items():
        path = bundle / "stack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copy(tf.workdir / ".terraform.lock.hcl", bundle / "stack")
    packages = [{"source": ADDRESS, "local": "stack", "meta": {}}]
    manifest = {"terraform_source_bundle": 1, "packages": packages, "registry": []}
    (bundle / "terraform-sources.json").write_text(json.dumps(manifest), encoding="utf-8")
    with _served(tf) as ask:
        ask.one("setup.Setup/Handshake", _message("Nothing")(), "Nothing")
        sources = ask.handle("dependencies.Dependencies/OpenSourceBundle", "Directory", path=str(bundle))
        cache_ = ask.handle("dependencies.Dependencies/OpenProviderPluginCache", "Directory", path=str(providers))
        lock = {"address": f"{ADDRESS}//.terraform.lock.hcl"}
        locks = ask.handle("dependencies.Dependencies/OpenDependencyLockFile", "InBundle", bundle=sources, source=lock)
        stack = {"address": ADDRESS}
        opened = ask.handle("stacks.Stacks/OpenStackConfiguration", "InBundle", bundle=sources, source=stack)
        request = _message("PlanRequest")(configuration=opened, locks=locks, providers=cache_)
        return _read(ask.many("stacks.Stacks/PlanStackChanges", request, "PlanEvent"))


def _read(events: Iterator[Any]) -> Plan:
    planned: set[str] = set()
    deferred: dict[str, str] = {}
    errors: list[str] = []
    for event in events:
        if event.WhichOneof("event") == "diagnostic" and event.diagnostic.severity == 1:
            errors.append(f"{event.diagnostic.summary}: {event.diagnostic.detail}")
        for each in event.change.descriptions:
            kind = each.WhichOneof("description")
            if kind == "planned":
                planned.add(_shown(each.planned))
            elif kind == "deferred":
                reason = each.deferred.why.DESCRIPTOR.fields_by_name["reason"].enum_type
                deferred[_shown(each.deferred.resource)] = reason.values_by_number[each.deferred.why.reason].name
    return Plan(frozenset(planned), deferred, tuple(errors))


def _shown(resource: Any) -> str:
    return f"{resource.address.component}.{resource.address.resource}"


@dataclass(frozen=True)
class _Ask:
    channel: grpc.Channel

    def one(self, call: str, request: Any, answer: str) -> Any:
        return self._call(self.channel.unary_unary, call, answer)(request, timeout=CALL_S)

    def many(self, call: str, request: Any, answer: str) -> Iterator[Any]:
        return self._call(self.channel.unary_stream, call, answer)(request, timeout=CALL_S)

    def handle(self, call: str, kind: str, **fields: Any) -> int:
        opened = self.one(call, _message(kind)(**fields), "Opened")
        assert opened.handle, opened.diagnostics
        return opened.handle

    @staticmethod
    def _call(make: Any, call: str, answer: str) -> Any:
        return make(
            f"/terraform1.{call}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=_message(answer).FromString,
        )


@contextmanager
def _served(tf: Terraform) -> Iterator[_Ask]:
    with (
        (tf.workdir / "rpcapi.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", LIBRARY_MAIN, "rpcapi"],
            cwd=tf.workdir,
            env={**tf.environment(), **COOKIE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            _, _, network, address, *_ = process.stdout.readline().split("|")
            with grpc.insecure_channel(f"{network}:{address}") as channel:
                yield _Ask(channel)
        finally:
            process.terminate()
            process.wait(END_S)


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    here = Path(__file__).parent
    with TemporaryDirectory() as scratch:
        compiled = Path(scratch) / "rpcapi.pb"
        assert protoc.main(["protoc", f"-I{here}", f"--descriptor_set_out={compiled}", "rpcapi.proto"]) == 0
        (file,) = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # pyright: ignore[reportUnknownMemberType] # untyped upstream
    return pool


def _message(name: str) -> type[Any]:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"rpcapi.{name}"))
