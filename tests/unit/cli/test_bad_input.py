"""Every wrong command line, file or setting gets one precise message: which flag or field, and no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.api.rig import Rig

Cli = Callable[..., Any]

VM = "kind: MicroVM\nname: web\nspec: {vcpu: 1, memory_in_mb: 128, kernel: {image: 'demo/kernel:6.1'}}\n"

USAGE: dict[str, tuple[list[str], str]] = {
    "unknown command": (["vm", "lst"], "No such command 'lst'"),
    "unknown option": (["vm", "list", "--hots", "h1"], "--hots"),
    "output format": (["vm", "list", "-o", "xml"], "'--output'"),
    "missing name": (["vm", "show"], "NAME"),
    "missing file option": (["apply"], "--file"),
    "label": (["vm", "list", "-l", "app"], "--label: 'app' is not KEY=VALUE"),
    "host label": (["host", "admit", "h1", "--set", "=x"], "'=x' is not KEY=VALUE"),
    "name that is a path": (["host", "show", "../tokens"], "'../tokens' is not a name"),
    "namespace that is a path": (["vm", "show", "web", "-n", "a/b"], "'a/b' is not a namespace"),
    "two namespaces": (["vm", "show", "demo/web", "-n", "shop"], "names another namespace than --namespace shop"),
    "wait target": (["apply", "-f", "vm.yaml", "--wait-for", "gone"], "--wait-for: 'gone' is not one of"),
    "timeout": (["apply", "-f", "vm.yaml", "--timeout", "0"], "'--timeout'"),
    "limit": (["watch", "--limit", "0"], "'--limit'"),
    "revision": (["watch", "--from", "x"], "'--from'"),
    "shell": (["completion", "tcsh"], "SHELL: 'tcsh' is not one of bash, zsh, fish"),
    "even nodes": (["dev", "up", "--nodes", "2"], "--nodes: 2 nodes tolerate no more failures than 1"),
    "too many hosts": (["dev", "up", "--hosts", "100"], "'--hosts'"),
    "dev driver": (["dev", "up", "--driver", "xen"], "--driver: 'xen' is not one of auto, qemu, simulated"),
    "demo driver": (["dev", "demo", "--driver", "xen"], "--driver: 'xen' is not one of"),
    "image without files": (["image", "add", "a/b:1"], "name at least one file"),
    "image layout without a name": (["image", "pull", "oci:layout:1"], "--as: oci:layout:1 has no name of its own"),
    "image file": (["image", "add", "a/b:1", "--file", "x"], "--file: 'x' is not NAME=FILE"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_command_line(cli: Cli, tmp_path: Path, case: str) -> None:
    (tmp_path / "vm.yaml").write_text(VM)
    arguments, expected = USAGE[case]
    answer = cli(*arguments)
    assert answer.code == 2
    assert expected in " ".join(answer.err.split())
    assert "Traceback" not in answer.err
    assert answer.out == ""


FILES: dict[str, tuple[str, str]] = {
    "not yaml": ("kind: [", "vm.yaml: line"),
    "empty": ("---\n", "vm.yaml: there is no resource in it"),
    "not a mapping": ("- 5\n", "vm.yaml: must be a mapping with kind, name and spec, not int"),
    "no kind": ("name: web\n", "vm.yaml: /kind is required"),
    "unknown kind": (VM.replace("MicroVM", "Pod"), "vm.yaml: /kind: 'Pod' is not one of"),
    "no name": ("kind: Host\n", "vm.yaml: /name is required"),
    "unknown field": (VM + "sepc: {}\n", "vm.yaml: /sepc: not a field of a resource"),
    "namespace of a host": ("kind: Host\nname: h1\nnamespace: x\n", "vm.yaml: /namespace: a Host is in no namespace"),
    "spec": ("kind: Host\nname: h1\nspec: [1]\n", "vm.yaml: /spec: must be a mapping"),
    "name": ("kind: Host\nname: ../h1\n", "vm.yaml: /name: '../h1' must be"),
    "same twice": (f"{VM}---\n{VM}", "vm.yaml (document 2): MicroVM demo/web is declared already in vm.yaml"),
    "repeated key": (VM + "name: x\n", "vm.yaml: line 4: key 'name' appears twice"),
    "alias": ("kind: Host\nname: &n h1\nlabels: {a: *n}\n", "vm.yaml: line 2: anchors and aliases"),
    "second document": (f"{VM}---\nkind: Host\n", "vm.yaml (document 2): /name is required"),
}


@pytest.mark.parametrize("case", FILES)
def test_wrong_resource_file(cli: Cli, api: Rig, tmp_path: Path, case: str) -> None:
    content, expected = FILES[case]
    (tmp_path / "vm.yaml").write_text(content)
    digest = api.digest
    answer = cli("apply", "-f", "vm.yaml", "-n", "demo")
    assert (answer.code, answer.out) == (1, "")
    assert expected in answer.err
    assert api.digest == digest


def test_fields_of_a_refused_resource_are_named_as_in_its_file(cli: Cli, api: Rig, tmp_path: Path) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    (tmp_path / "vm.yaml").write_text(VM.replace("vcpu: 1", "vcpu: 0").replace("'demo/kernel:6.1'", "'my kernel'"))
    assert cli("apply", "-f", "vm.yaml", "-n", "demo").out.splitlines()[:3] == [
        "! MicroVM demo/web: refused",
        "    vm.yaml: /spec/vcpu: must be greater than or equal to 1",
        "    vm.yaml: /spec/kernel/image: must be an image reference, such as registry/kernel:6.1",
    ]


def test_missing_file_and_empty_directory(cli: Cli, tmp_path: Path) -> None:
    assert "none.yaml: No such file" in cli("apply", "-f", "none.yaml").err
    (tmp_path / "empty").mkdir()
    assert "empty: the directory holds no .yaml" in cli("apply", "-f", "empty").err


REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "not found": (["vm", "show", "demo/none"], ["404", "demo/none"]),
    "namespace in use": (["namespace", "delete", "demo"], ["namespace_not_empty", "/name"]),
    "host in use": (["host", "delete", "h1"], ["host_in_use"]),
    "no such operation": (["operation", "show", "op-1"], ["404"]),
    "unknown host": (["host", "cordon", "h7"], ["404", "h7"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_of_the_api_are_shown_with_code_and_field(cli: Cli, api: Rig, case: str) -> None:
    api.with_host()
    api.active()
    arguments, expected = REFUSED[case]
    digest = api.digest
    answer = cli(*arguments)
    assert answer.code == 1
    for text in expected:
        assert text in answer.err
    assert api.digest == digest


CONNECTION: dict[str, tuple[dict[str, str], list[str], str]] = {
    "wrong token": ({"FLINTLOCK_TOKEN": "flk_wrong"}, [], "401 unauthenticated"),
    "token with spaces": ({"FLINTLOCK_TOKEN": "a b"}, [], "FLINTLOCK_TOKEN: not a token"),
    "token flag": ({}, ["--token", "x\ny"], "--token: not a token"),
    "no authority": ({"FLINTLOCK_CA_FILE": "/none.crt"}, [], "FLINTLOCK_CA_FILE: /none.crt does not exist"),
    "authority without a certificate": (
        {"FLINTLOCK_CA_FILE": __file__},
        [],
        f"FLINTLOCK_CA_FILE: {__file__} holds no PEM certificate",
    ),
    "plain http": ({"FLINTLOCK_ENDPOINTS": "http://127.0.0.1:1"}, [], "the API is served over https only"),
    "no port": (
        {"FLINTLOCK_ENDPOINTS": "https://127.0.0.1:x"},
        [],
        "FLINTLOCK_ENDPOINTS: 'https://127.0.0.1:x': must be",
    ),
    "endpoint path": ({}, ["--endpoint", "https://a:1/api"], "--endpoint: 'https://a:1/api': must be"),
    "nobody there": ({}, ["--endpoint", "127.0.0.1:9"], "no control-plane node answers at https://127.0.0.1:9"),
    "context": ({"FLINTLOCK_TOKEN": ""}, ["--context", "prod"], "--context: there is no context 'prod'"),
    "no token": ({"FLINTLOCK_TOKEN": ""}, [], "no token is configured"),
    "no endpoint": ({"FLINTLOCK_ENDPOINTS": ""}, [], "no endpoint is configured"),
}


@pytest.mark.parametrize("case", CONNECTION)
def test_wrong_connection(cli: Cli, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    environ, flags, expected = CONNECTION[case]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    answer = cli(*flags, "vm", "list")
    assert (answer.code, answer.out) == (1, "")
    assert expected in answer.err
    assert "hint: " in answer.err or "FLINTLOCK" in answer.err or "--" in answer.err


def test_strange_authority_is_not_trusted(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from controlplane.identity.authority import Authority

    other = Authority.create(tmp_path / "other", cluster_id="other")
    monkeypatch.setenv("FLINTLOCK_CA_FILE", str(other.certificate_path))
    answer = cli("vm", "list")
    assert answer.code == 1
    assert "was not issued by an authority that you trust" in answer.err
    assert "--ca-file" in answer.err


@pytest.mark.parametrize(
    ("command", "content", "expected"),
    [
        ("node", "node: n1\n", "settings.yaml: cluster_id: is required"),
        ("node", "nod: n1\n", "settings.yaml: nod: is not a known setting"),
        ("agent", "host: h1\n", "settings.yaml: drivers: is required"),
        ("agent", "- x\n", "settings.yaml: must be a mapping"),
    ],
)
def test_wrong_settings_file(bare: Cli, tmp_path: Path, command: str, content: str, expected: str) -> None:
    (tmp_path / "settings.yaml").write_text(content)
    answer = bare(command, "run", "--config", "settings.yaml", "--check")
    assert answer.code == 1
    assert expected in answer.err


def test_internal_errors_are_told_without_a_traceback(bare: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> str:
        raise RuntimeError("broken inside")

    monkeypatch.setattr("controlplane.cli.main.metadata.version", broken)
    answer = bare("version")
    assert answer.code == 1
    assert answer.err == (
        "flintctl: internal error: RuntimeError: broken inside\nhint: FLINTLOCK_DEBUG=1 shows where; please report it\n"
    )
