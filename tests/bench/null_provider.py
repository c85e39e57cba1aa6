"""A provider in Go that manages nothing (`nullprovider/main.go`), with our provider's schema and in its place.

It is made of what Terraform's own providers are made of: go-plugin, grpc-go, go-cty, and stubs that protoc generates
from the protocol's descriptor.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from google.protobuf import descriptor_pb2
from provider_shim.mirror import executable_path
from provider_shim.resources.provider import FlintlockProvider
from support.plugin import served
from tfplugin_proto import tfplugin6_4_pb2

PACKAGES = Path("/usr/share/gocode")
"""Debian's packages of Go."""
PROGRAM = Path(__file__).with_name("nullprovider") / "main.go"
PROTOCOL = "tfplugin6"


def build(directory: Path) -> Path:
    """Compile it into `directory`."""
    program, stubs = directory / "nullprovider", directory / "src" / PROTOCOL
    if program.exists() and program.stat().st_mtime > PROGRAM.stat().st_mtime:
        return program
    for tool in ("go", "protoc", "protoc-gen-go"):
        if shutil.which(tool) is None:
            raise SystemExit(f"needs {tool}: bash tests/bench/go-parts.sh")
    stubs.mkdir(parents=True, exist_ok=True)
    protocol = descriptor_pb2.FileDescriptorProto.FromString(tfplugin6_4_pb2.DESCRIPTOR.serialized_pb)
    protocol.name, protocol.options.go_package = f"{PROTOCOL}.proto", PROTOCOL
    descriptors = directory / "descriptors.pb"
    descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=[protocol]).SerializeToString())
    subprocess.run(
        ["protoc", f"--descriptor_set_in={descriptors}", f"--go_out=plugins=grpc:{stubs}", protocol.name],
        check=True,
        timeout=60,
    )
    paths = {"GO111MODULE": "off", "GOPATH": f"{directory.absolute()}:{PACKAGES}"}
    subprocess.run(["go", "build", "-o", program, PROGRAM], check=True, timeout=600, env={**os.environ, **paths})
    return program


def lay_out(program: Path, mirror: Path) -> dict[str, str]:
    """Put it where Terraform finds our provider in `mirror`. Returns the environment that it needs."""
    executable = executable_path(mirror)
    executable.parent.mkdir(parents=True)
    shutil.copy2(program, executable)
    schema = mirror / "schema.pb"
    with served(FlintlockProvider()) as ask:
        schema.write_bytes(ask("GetProviderSchema").SerializeToString())
    return {"NULLPROVIDER_SCHEMA": str(schema)}
