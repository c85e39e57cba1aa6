"""The rows of the table: one resource of every type, in one configuration, with all that they need.

Each is called `this`, has an annotation that follows `var.note`, and writes nothing that only Terraform knows (such as
`timeouts`), so that an import is complete. That every attribute works is shown by `fleet.tf`.
"""

from __future__ import annotations

from dataclasses import dataclass

from acceptance.terraform.steps import HEADER
from provider_shim.resources.provider import FlintlockProvider

FIRST, SECOND = "first", "second"
NEEDED = (
    HEADER
    + f"""
variable "note" {{ default = "{FIRST}" }}

resource "flintlock_host" "needed" {{
  name   = "h1"
  labels = {{ rack = "r1" }}
}}

resource "flintlock_namespace" "needed" {{
  name = "needed"
}}

resource "flintlock_role" "needed" {{
  name  = "needed"
  rules = [{{ verbs = ["read"], kinds = ["MicroVM"] }}]
}}
"""
)
_MICROVM = """\
vcpu         = 1
memory_in_mb = 128
kernel       = { image = "demo/kernel:6.1", cmdline = { quiet = "" } }
initrd       = { image = "demo/initrd:1" }
root_volume  = { container_source = "demo/root:1" }
interfaces   = { eth1 = { type = "tap", bridge_name = "br0" } }
placement    = { required_host_labels = flintlock_host.needed.labels }
recovery     = { on_host_failure = "restart_elsewhere" }
"""


@dataclass(frozen=True)
class Case:
    """One resource."""

    type_name: str
    import_id: str
    path: str
    """In the API."""
    body: str
    """What is written about it, beside the annotation."""

    @property
    def address(self) -> str:
        return f"{self.type_name}.this"

    @property
    def identity(self) -> dict[str, str]:
        names = FlintlockProvider().resources[self.type_name].identity
        return dict(zip(names, self.import_id.split("/"), strict=True))

    @property
    def hcl(self) -> str:
        """With an output of all that it has."""
        return (
            f'resource "{self.type_name}" "this" {{\nannotations = {{ note = var.note }}\n{self.body}}}\n'
            f'output "{self.type_name}" {{\nvalue = {self.address}\nsensitive = true\n}}\n'
        )


CASES = (
    Case("flintlock_namespace", "this", "/namespaces/this", 'name = "this"\nmax_microvms = 10\n'),
    Case("flintlock_host", "h3", "/hosts/h3", 'name = "h3"\nlabels = { rack = "r3" }\nschedulable = false\n'),
    Case(
        "flintlock_placement_policy",
        "this",
        "/placementpolicies/this",
        'name = "this"\nrequired_host_labels = { rack = "r1" }\nspread = { by = "rack", max_per = 5 }\n',
    ),
    Case(
        "flintlock_failover_policy",
        "this",
        "/failoverpolicies/this",
        'name = "this"\nrestart = "delayed"\ndelay_s = 300\n',
    ),
    Case("flintlock_gc_policy", "default", "/gcpolicies/default", "leftover_after_s = 3600\n"),
    Case(
        "flintlock_role",
        "this",
        "/roles/this",
        'name = "this"\nrules = [{ verbs = ["act"], kinds = ["MicroVM"], labels = { app = "web" } }]\n',
    ),
    Case(
        "flintlock_role_binding",
        "this",
        "/rolebindings/this",
        'name = "this"\nrole = flintlock_role.needed.name\nnamespaces = ["needed"]\n'
        'subjects = [{ kind = "group", name = "web-team" }]\n',
    ),
    Case(
        "flintlock_microvm",
        "needed/this",
        "/namespaces/needed/microvms/this",
        f'name = "this"\nnamespace = flintlock_namespace.needed.name\nlabels = {{ app = "web" }}\n{_MICROVM}',
    ),
    Case(
        "flintlock_microvm_group",
        "needed/those",
        "/namespaces/needed/microvmgroups/those",
        f'name = "those"\nnamespace = flintlock_namespace.needed.name\nreplicas = 1\ntemplate = {{\n{_MICROVM}}}\n',
    ),
)
FLEET = NEEDED + "\n".join(each.hcl for each in CASES)
