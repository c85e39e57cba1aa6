"""In HCL: Terraform shows the line, and the summary or the detail names the attribute on it."""

from __future__ import annotations

from acceptance.bad_input.cases import HclCase

APPLY = ("apply", "-auto-approve")


def vm(extra: str = "", **changes: str) -> str:
    """A microVM with one thing wrong: an attribute more, or another value of one."""
    attributes = {
        "name": '"bad"',
        "namespace": '"demo"',
        "vcpu": "1",
        "memory_in_mb": "128",
        "kernel": '{ image = "demo/kernel:6.1" }',
        **changes,
    }
    lines = "\n".join(f"  {name} = {value}" for name, value in attributes.items())
    return f'resource "flintlock_microvm" "bad" {{\n{lines}\n  {extra}\n}}\n'


def provider(arguments: str) -> str:
    return f'provider "flintlock" {{\n  {arguments}\n}}\n\ndata "flintlock_cluster" "this" {{}}\n'


CASES = [
    # What the provider knows by itself is refused while planning.
    HclCase("too few vcpu", vm(vcpu="0"), "Invalid vcpu", "0 is not a whole number between 1 and 64.", "vcpu ="),
    HclCase("a bad name", vm(name='"Bad_1"'), "Invalid name", '"Bad_1" is not a name: lower-case letters', "name ="),
    HclCase(
        "a bad image",
        vm(kernel='{ image = "my kernel" }'),
        "Invalid kernel.image",
        '"my kernel" is not an image reference, such as registry/kernel:6.1.',
        "kernel =",
    ),
    HclCase(
        "an unknown power state",
        vm('power_state = "on"'),
        "Invalid power_state",
        '"on" is not one of "running", "stopped", "paused".',
        "power_state =",
    ),
    HclCase(
        "a netmask for a prefix length",
        vm('interfaces = { eth1 = { address = { address = "10.0.0.2/255.0.0.0" } } }'),
        'Invalid interfaces["eth1"].address.address',
        '"10.0.0.2/255.0.0.0" needs a prefix length, such as 10.0.0.2/24.',
        "interfaces =",
    ),
    HclCase(
        "a bad key of a map",
        vm('additional_volumes = { "a/b" = { size_in_mb = 1 } }'),
        'Invalid additional_volumes["a/b"]',
        'The key "a/b" is not an id',
        "additional_volumes =",
    ),
    HclCase(
        "a volume with two sources",
        vm('root_volume = { container_source = "a", virtiofs_source = "/b" }'),
        "A volume has two sources",
        "Give container_source or virtiofs_source, not both.",
        "root_volume =",
    ),
    HclCase(
        "a timeout that is no duration",
        vm('timeouts {\n    create = "5 minutes"\n  }'),
        "Invalid timeouts.create",
        '"5 minutes" is not a duration; write it as 90s, 5m or 1h30m.',
        "create =",
    ),
    HclCase(
        "a spread over nothing",
        vm("placement = { spread = { max_per = 0 } }"),
        "Invalid placement.spread.max_per",
        "0 is not a whole number between 1 and 10000.",
        "placement =",
    ),
    HclCase(
        "restarted elsewhere, and kept where it is",
        vm('recovery = { on_host_failure = "restart_elsewhere", on_detach = "keep" }'),
        "What is kept cannot be restarted elsewhere",
        "so it might run twice: choose pause, stop or shutdown",
        "recovery =",
    ),
    # What only the API knows is refused while planning, where nothing else in the same apply can mend it.
    HclCase(
        "a kernel argument with a space",
        vm(kernel='{ image = "k", cmdline = { a = "b c" } }'),
        "Cannot declare this microVM as planned",
        'kernel.cmdline["a"]: must hold no space and no line break. [invalid]',
        "kernel =",
    ),
    HclCase(
        "a bad label value",
        vm('labels = { x = "a b" }'),
        "Cannot declare this microVM as planned",
        "labels[\"x\"]: must be letters, digits, '.', '_' and '-'",
        "labels =",
    ),
    # The rest is refused while applying.
    HclCase(
        "a namespace that does not exist",
        vm(namespace='"nowhere"'),
        "Cannot create microVM nowhere/bad",
        "namespace nowhere does not exist. Declare the namespace first. [namespace_not_found]",
        "namespace =",
        APPLY,
    ),
    HclCase(
        "a placement policy that does not exist",
        vm('placement = { policy = "none" }'),
        "Cannot create microVM demo/bad",
        "placement.policy: placement policy none does not exist.",
        "placement =",
        APPLY,
    ),
    HclCase(
        "more than the quota",
        vm(vcpu="64"),
        "Cannot create microVM demo/bad",
        "namespace demo allows 16, this would make 65.",
        "vcpu =",
        APPLY,
    ),
    HclCase(
        "a name that is taken",
        vm(name='"web"'),
        "microVM demo/web exists already",
        "terraform import flintlock_microvm.NAME demo/web",
        "name =",
        APPLY,
    ),
    # Import.
    HclCase(
        "an import of nothing",
        vm(),
        "There is no microVM demo/none",
        "Nothing was imported.",
        None,
        ("import", "flintlock_microvm.bad", "demo/none"),
    ),
    HclCase(
        "an import id of another form",
        vm(),
        '"none" names no microVM',
        "The import id of a flintlock_microvm is NAMESPACE/NAME.",
        None,
        ("import", "flintlock_microvm.bad", "none"),
    ),
    # Data sources and the provider itself.
    HclCase(
        "a data source of no namespace",
        'data "flintlock_microvms" "bad" {\n  namespace = "nowhere"\n}\n',
        "Cannot read data source flintlock_microvms",
        "namespace nowhere does not exist.",
        "namespace =",
    ),
    HclCase(
        "plain http",
        provider('endpoints = ["http://127.0.0.1:1"]'),
        "Invalid endpoint",
        '"http://127.0.0.1:1" is not an https:// address such as https://10.0.0.1:8443.',
        "endpoints =",
    ),
    HclCase(
        "an authority that is no certificate",
        provider('ca_file = "main.tf"'),
        "Invalid ca_file",
        'There is no PEM certificate in "main.tf".',
        "ca_file =",
    ),
    HclCase(
        "another authority",
        provider('ca_file = "OTHER_CA"'),
        "Cannot read data source flintlock_cluster: the control plane does not answer",
        "certificate verify failed",
        'data "flintlock_cluster"',
    ),
    HclCase(
        "a token that nobody gave",
        provider('token = "flk_wrong"'),
        "Cannot read data source flintlock_cluster",
        "the bearer token is not known. Check the provider's token (or FLINTLOCK_TOKEN). [unauthenticated]",
        'data "flintlock_cluster"',
    ),
]
