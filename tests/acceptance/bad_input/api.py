"""Over HTTP: the problem names the field by JSON pointer."""

from __future__ import annotations

from typing import Any

from acceptance.bad_input.cases import ApiCase

VM = "/namespaces/demo/microvms/bad"
WEB = "/namespaces/demo/microvms/web"
SPEC: dict[str, Any] = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}


def spec(**changes: Any) -> dict[str, Any]:
    return {"spec": {**SPEC, **changes}}


CASES = [
    ApiCase("nothing in the body", "PUT", VM, {}, pointer="/spec", message="is required"),
    ApiCase("too few vcpu", "PUT", VM, spec(vcpu=0), pointer="/spec/vcpu", message="greater than or equal to 1"),
    ApiCase("a word for a number", "PUT", VM, spec(vcpu="many"), pointer="/spec/vcpu", message="valid integer"),
    ApiCase("an unknown field", "PUT", VM, spec(cpu=1), pointer="/spec/cpu", message="unknown field"),
    ApiCase(
        "an image with a space",
        "PUT",
        VM,
        spec(kernel={"image": "my kernel"}),
        pointer="/spec/kernel/image",
        message="must be an image reference, such as registry/kernel:6.1",
    ),
    ApiCase(
        "a netmask for a prefix length",
        "PUT",
        VM,
        spec(interfaces={"eth1": {"address": {"address": "10.0.0.2/255.0.0.0"}}}),
        pointer="/spec/interfaces/eth1/address/address",
        message="must be an address with a prefix length, such as 10.0.0.2/24",
    ),
    ApiCase(
        "a bad name",
        "PUT",
        "/namespaces/demo/microvms/Web_1",
        spec(),
        pointer="/name",
        message="must be lower-case letters, digits and '-'",
    ),
    ApiCase(
        "a namespace that does not exist",
        "PUT",
        "/namespaces/nowhere/microvms/web",
        spec(),
        status=404,
        code="namespace_not_found",
        pointer="/namespace",
        message="namespace nowhere does not exist",
    ),
    ApiCase(
        "a placement policy that does not exist",
        "PUT",
        VM,
        spec(placement={"policy": "none"}),
        code="policy_not_found",
        pointer="/spec/placement/policy",
        message="placement policy none does not exist",
    ),
    ApiCase(
        "restarted elsewhere, and kept where it is",
        "PUT",
        VM,
        spec(recovery={"on_host_failure": "restart_elsewhere", "on_detach": "keep"}),
        pointer="/spec/recovery/on_detach",
        message="on_detach cannot be keep with on_host_failure = restart_elsewhere",
    ),
    ApiCase(
        "a host that is not there is off",
        "POST",
        "/hosts/h7/actions/confirm-fenced",
        status=404,
        code="not_found",
        pointer="/name",
        message="Host h7 does not exist",
    ),
    ApiCase(
        "a host that is heard is off",
        "POST",
        "/hosts/h1/actions/confirm-fenced",
        status=409,
        code="host_not_lost",
        pointer="/name",
        message="host h1 is ready: only a host that fell silent can be confirmed as off",
    ),
    ApiCase(
        "more than the quota",
        "PUT",
        VM,
        spec(vcpu=64),
        status=409,
        code="quota_exceeded",
        pointer="/spec/vcpu",
        message="namespace demo allows 16, this would make 65",
    ),
    ApiCase(
        "a change that needs a replacement",
        "PUT",
        WEB,
        spec(provider="qemu"),
        status=409,
        code="requires_replacement",
        pointer="/spec/provider",
        message="provider cannot change on an existing microVM",
    ),
    ApiCase(
        "a revision that is not the present one",
        "PUT",
        WEB,
        spec(),
        {"If-Match": '"1"'},
        status=412,
        code="revision_conflict",
        pointer="/header/if-match",
        message="MicroVM web is at revision",
    ),
    ApiCase(
        "a name that is taken",
        "PUT",
        WEB,
        spec(vcpu=2),
        {"If-None-Match": "*"},
        status=412,
        code="already_exists",
        pointer="/name",
        message="MicroVM web already exists",
    ),
    ApiCase(
        "a namespace that is not empty",
        "DELETE",
        "/namespaces/demo",
        status=409,
        code="namespace_not_empty",
        pointer="/name",
        message="namespace demo still has 1 microVM",
    ),
    ApiCase(
        "a host that holds something",
        "DELETE",
        "/hosts/h1",
        status=409,
        code="host_in_use",
        pointer="/name",
        message="host h1 still holds 1 microVM: demo/web",
    ),
    ApiCase(
        "an unknown action", "POST", f"{WEB}/actions/explode", pointer="/action", message="must be 'repair', 'start'"
    ),
    ApiCase(
        "one wrong resource of an atomic batch",
        "POST",
        "/apply",
        {
            "atomic": True,
            "resources": [{"kind": "Namespace", "name": "ok"}, {"kind": "Host", "name": "h9", "spec": {"cordoned": 1}}],
        },
        pointer="/resources/1/spec/cordoned",
        message="unknown field",
    ),
    ApiCase(
        "a watch of the future",
        "GET",
        "/watch?from=999999",
        pointer="/query/from",
        message="revision 999999 is yet to come",
    ),
    ApiCase(
        "a token that nobody gave",
        "PUT",
        VM,
        spec(),
        {"Authorization": "Bearer flk_wrong"},
        status=401,
        code="unauthenticated",
    ),
]
