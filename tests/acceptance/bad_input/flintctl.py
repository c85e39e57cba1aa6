"""On flintctl's command line and in its files: the flag, or the file and the field."""

from __future__ import annotations

from acceptance.bad_input.cases import CliCase

VM = """kind: MicroVM
name: bad
namespace: demo
spec: {vcpu: 1, memory_in_mb: 128, kernel: {image: 'demo/kernel:6.1'}}
"""
APPLY = ("apply", "-f", "a.yaml")

CASES = [
    CliCase("an unknown command", ("vm", "lst"), ("No such command 'lst'. Did you mean 'list'?",), 2),
    CliCase("an unknown flag", ("vm", "list", "--hots", "h1"), ("No such option: --hots", "--host"), 2),
    CliCase("a label without a value", ("vm", "list", "-l", "app"), ("--label: 'app' is not KEY=VALUE",), 2),
    CliCase("a name that is a path", ("host", "show", "../tokens"), ("'../tokens' is not a name",), 2),
    CliCase("no such microVM", ("vm", "show", "demo/none"), ("microVM demo/none does not exist [404 not_found]",)),
    CliCase("no such host", ("host", "cordon", "h7"), ("host h7 does not exist [404 not_found]", "/name")),
    CliCase(
        "a host that holds something",
        ("host", "delete", "h1", "--yes"),
        ("host h1 still holds 1 microVM: demo/web [409 host_in_use]", "hint: Cordon the host"),
    ),
    CliCase(
        "a host that is heard is off",
        ("host", "confirm-fenced", "h1", "--yes"),
        ("host h1 is ready: only a host that fell silent can be confirmed as off [409 host_not_lost]", "hint: Only a"),
    ),
    CliCase("plain http", ("--endpoint", "http://127.0.0.1:1", "vm", "list"), ("--endpoint: http://127.0.0.1:1: ",)),
    CliCase(
        "an authority that is no certificate",
        ("--ca-file", "a.yaml", "vm", "list"),
        ("--ca-file: a.yaml holds no PEM certificate",),
        file=VM,
    ),
    CliCase("a wrong token", ("--token", "wrong", "vm", "list"), ("the bearer token is not known [401 unauth",)),
    CliCase(
        "a raft address without a port",
        ("raft", "add", "n9", "--address", "10.0.0.9"),
        ("--address: '10.0.0.9' must be HOST:PORT",),
        2,
    ),
    CliCase("a node id that is none", ("raft", "promote", "N9"), ("'N9' is not a node's id",), 2),
    CliCase(
        "a learner at another's address",
        ("raft", "add", "n9", "--address", "127.0.0.1:1", "--api", "x:y"),
        ("--api: 'x:y' must be HOST:PORT",),
        2,
    ),
    CliCase(
        "a node that is no member",
        ("raft", "remove", "n9", "--yes"),
        ("n9 is not a member of this cluster", "[409 membership_refused]", "Nothing was changed."),
    ),
    CliCase("a leader that is no member", ("raft", "transfer", "n9"), ("n9", "[409 membership_refused]")),
    CliCase("a replacement by itself", ("raft", "replace", "n1", "n1", "--address", "h:1"), ("never used twice",), 2),
    CliCase("no settings to recover", ("raft", "recover", "--config", "a.yaml"), ("a.yaml: cannot be read: No such",)),
    CliCase(
        "a place that is none",
        ("snapshot", "save", "ftp://x/y"),
        ("'ftp://x/y' is no place for snapshots", "[invalid]"),
    ),
    CliCase(
        "a bucket without credentials",
        ("snapshot", "list", "s3://backups/x"),
        ("access_key_id and secret_access_key: no S3 credential was given", "AWS_ACCESS_KEY_ID"),
    ),
    CliCase(
        "an archive that is none",
        ("snapshot", "verify", "a.flsnap"),
        ("a.flsnap: there is no snapshot",),
    ),
    CliCase("no such file", APPLY, ("a.yaml: No such file or directory",)),
    CliCase("a repeated key", APPLY, ("a.yaml: line 5: key 'name' appears twice",), file=VM + "name: x\n"),
    CliCase("an unknown kind", APPLY, ("a.yaml: /kind: 'Pod' is not one of",), file="kind: Pod\nname: x\n"),
    CliCase(
        "two wrong fields of a resource",
        APPLY,
        ("a.yaml: /spec/vcpu: must be greater", "a.yaml: /spec/kernel/image: must be an image reference"),
        file=VM.replace("vcpu: 1", "vcpu: 0").replace("demo/kernel:6.1", "my kernel"),
    ),
    CliCase(
        "a namespace that does not exist",
        APPLY,
        ("a.yaml: /namespace: namespace nowhere does not exist", "hint: Declare the namespace first."),
        file=VM.replace("demo\n", "nowhere\n"),
    ),
]
