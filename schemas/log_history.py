"""A short recorded history of a cluster: every command kind once at least, with everything optional set somewhere.

`generate_log.py` writes it to `schemas/log/golden/`. Append to it when a kind or a field is added; never edit what is
there, because its bytes stand for what clusters have in their logs.
"""

from __future__ import annotations

import dataclasses

from controlplane.model import access, api_tokens
from controlplane.model.audit import Origin
from controlplane.model.commands import (
    AbortRotation,
    Act,
    Action,
    ActOnHost,
    AddDataKey,
    Adopt,
    AgentConnected,
    AgentLost,
    Batch,
    BeginAudit,
    BeginIncarnation,
    CancelOverride,
    Collect,
    Command,
    ConfirmFenced,
    ConfirmOff,
    CreateApiToken,
    CreateJoinToken,
    DeclareFailoverPolicy,
    DeclareGCPolicy,
    DeclareHost,
    DeclareMicroVM,
    DeclareMicroVMGroup,
    DeclareNamespace,
    DeclarePlacementPolicy,
    DeclareRole,
    DeclareRoleBinding,
    Delete,
    Destroyed,
    DropAudit,
    DropDataKey,
    Envelope,
    EstablishAuthority,
    Evict,
    ExportedAudit,
    Hold,
    HoldKind,
    HostAction,
    HostDetached,
    HostEvacuated,
    HostFenced,
    HostHeard,
    HostSuspected,
    Join,
    MarkStaying,
    MarkUnplaced,
    NewMember,
    NoteApiTokenUses,
    OverrideBreaker,
    Place,
    Precondition,
    RaiseMachineVersion,
    Release,
    RenewCertificate,
    Report,
    Reseal,
    Resealed,
    Resurrect,
    RetireAuthority,
    RevokeApiToken,
    RevokeCertificates,
    RevokeJoinToken,
    RotateApiToken,
    RotateAuthority,
    Stall,
    StepGroup,
    Witnessed,
    WitnessRequests,
    seal,
)
from controlplane.model.credentials import MemberKind, Sealed
from controlplane.model.gc import Leftover, LeftoverKind, Subject, SubjectKind, Trigger
from controlplane.model.groups import GroupSpread, MicroVMGroupSpec, Rollout
from controlplane.model.resources import (
    Amount,
    Bid,
    DriverFacts,
    Failure,
    InterfaceFacts,
    Inventory,
    Observation,
    ObservedPower,
    Unmanaged,
)
from controlplane.model.secrets import SealedValue
from controlplane.model.spec import (
    DriftPolicy,
    Evacuation,
    FailoverPolicySpec,
    GCPolicySpec,
    HostFailure,
    HostMode,
    HostSpec,
    Initrd,
    Interface,
    Kernel,
    MicroVMSpec,
    NamespaceSpec,
    OnDetach,
    Placement,
    PlacementPolicySpec,
    Recovery,
    Restart,
    Spread,
    StaticAddress,
    Volume,
    VolumeKind,
)
from controlplane.model.types import Kind, replace

START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z; every command comes one second later."""

_SMALL = MicroVMSpec(vcpu=1, memory_in_mb=128, kernel=Kernel(image="demo/kernel:6.1"))
_FULL = MicroVMSpec(
    vcpu=2,
    memory_in_mb=256,
    kernel=Kernel(image="demo/kernel:6.1", filename="vmlinux", cmdline={"console": "ttyS0"}, add_network_config=True),
    initrd=Initrd(image="demo/initrd:1", filename="initrd.img"),
    root_volume=Volume(container_source="demo/root:1", size_in_mb=512),
    additional_volumes={"data": Volume(kind=VolumeKind.LOCAL, size_in_mb=64, mount_point="/data", is_read_only=True)},
    interfaces={
        "eth1": Interface(
            guest_mac="02:00:00:00:00:01",
            address=StaticAddress(address="10.0.0.2/24", gateway="10.0.0.1", nameservers=["10.0.0.1"]),
            bridge_name="br0",
        )
    },
    metadata={"user-data": "#cloud-config\n"},
    provider="qemu",
    drift_policy=DriftPolicy.REPORT,
    placement=Placement(policy="spread", required_host_labels={"zone": "a"}, spread=Spread(max_per=2)),
    recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE),
)
_MOVES = dataclasses.replace(
    _SMALL,
    recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE, on_detach=OnDetach.SHUTDOWN, allow_data_loss=True),
)
_KEPT = Leftover(
    driver="qemu",
    kind=LeftoverKind.VOLUMES,
    name="quarantine/uid-of-waits-1000001",
    uid="uid-of-waits",
    microvm="demo/waits",
    epoch=1_000_001,
    bytes=65_536,
    ours=True,
)
_DIGEST = "hmac-sha256:" + "5e" * 32
_BIDS = [Bid(host="h1", score=0.25, parts={"load": 0.25}), Bid(host="h2", refused="the host is unreachable")]


def _connected(host: str, session: str) -> AgentConnected:
    return AgentConnected(
        host=host,
        uid=f"uid-of-{host}",
        session=session,
        node="n1",
        inventory=Inventory(
            agent_version="0.1.0",
            boot_id="4d1f",
            drivers=[DriverFacts(name="qemu", version="8.2", accelerator="tcg"), DriverFacts(name="simulated")],
            capacity=Amount(microvms=16, vcpu=8, memory_in_mb=4096),
        ),
    )


def _seen(power: ObservedPower, *, uid: str = "uid-of-web", failure: Failure | None = None) -> Observation:
    running = power is ObservedPower.RUNNING
    return Observation(
        uid=uid,
        host="h1",
        epoch=1,
        at=START_MS + 500,
        power=power,
        generation=1,
        ready=running,
        vcpu=2,
        memory_in_mb=256,
        driver="qemu",
        cause=None if running else "process exited (signal 9)",
        failure=failure,
        details={"pid": "4711"},
        interfaces={"eth1": InterfaceFacts(host_device="tap0", mac_address="02:00:00:00:00:01")},
    )


def _under_lease(session: str) -> AgentConnected:
    """Of host h3, whose driver fences."""
    return replace(
        _connected("h3", session),
        inventory=Inventory(
            agent_version="0.2.0",
            boot_id="77aa",
            drivers=[DriverFacts(name="qemu", version="8.2", accelerator="kvm", fences=True)],
            capacity=Amount(microvms=16, vcpu=8, memory_in_mb=4096),
        ),
        lease_ttl_ms=10_000,
    )


def _declared(name: str, spec: MicroVMSpec, when: Precondition | None = None) -> DeclareMicroVM:
    return DeclareMicroVM(
        namespace="demo",
        name=name,
        uid=f"uid-of-{name}",
        spec=spec,
        labels={"app": name},
        annotations={"example.com/owner": "ops"},
        when=when or Precondition(),
    )


def _placed(name: str) -> Place:
    return Place(uid=f"uid-of-{name}", generation=1, host="h1", score=0.25, bids=_BIDS)


_COMMANDS: list[Command] = [
    DeclareNamespace(
        name="demo",
        uid="uid-of-demo",
        spec=NamespaceSpec(max_microvms=10, max_vcpu=20, max_memory_in_mb=4096),
        when=Precondition(create_only=True),
    ),
    DeclarePlacementPolicy(
        name="spread",
        uid="uid-of-spread",
        spec=PlacementPolicySpec(
            required_host_labels={"zone": "a"},
            preferred_host_labels={"disk": "ssd"},
            spread=Spread(by="host", max_per=2, match_labels={"app": "web"}),
        ),
    ),
    DeclareHost(name="h1", uid="uid-of-h1", spec=HostSpec(), labels={"zone": "a"}),
    DeclareHost(name="h2", uid="uid-of-h2", spec=HostSpec(schedulable=False), labels={"zone": "b"}),
    _declared("web", _FULL),
    MarkUnplaced(
        uid="uid-of-web",
        generation=1,
        reason="NoHostFits",
        message="no host takes it: h1: the host is expected",
        bids=[Bid(host="h1", refused="the host is expected")],
    ),
    _connected("h1", "session-1"),
    _connected("h2", "session-2"),
    _placed("web"),
    Report(host="h1", session="session-1", observed=[_seen(ObservedPower.RUNNING)]),
    Report(
        host="h1",
        session="session-1",
        observed=[_seen(ObservedPower.STOPPED)],
        unmanaged=[Unmanaged(native_id="9", driver="qemu", uid="x", namespace="demo", name="old", epoch=3)],
    ),
    Act(namespace="demo", name="web", action=Action.REPAIR),
    _declared("web", _FULL, Precondition(revision=99)),
    _declared("bad", _SMALL),
    _placed("bad"),
    Report(
        host="h1",
        session="session-1",
        observed=[
            _seen(
                ObservedPower.ABSENT,
                uid="uid-of-bad",
                failure=Failure(
                    code="ImageNotFound", message="no such image", pointer="/spec/kernel/image", permanent=True
                ),
            )
        ],
    ),
    AgentLost(host="h2", session="session-2", reason="silent for 10 s"),
    Delete(kind=Kind.MICROVM, namespace="demo", name="web"),
    Report(host="h1", session="session-1", destroyed=[Destroyed(uid="uid-of-web", epoch=1)]),
    Batch(
        commands=[
            seal(_declared("one", _SMALL), id="batched-1", at=START_MS, actor="alice"),
            seal(Delete(kind=Kind.HOST, name="h2"), id="batched-2", at=START_MS, actor="alice"),
        ]
    ),
    DeclareHost(name="h3", uid="uid-of-h3", spec=HostSpec(), labels={"zone": "a"}),
    _under_lease("session-3"),
    _declared("moves", _MOVES),
    replace(_placed("moves"), host="h3"),
    HostSuspected(host="h3", session="session-3", reason="no lease granted for 3 s"),
    HostHeard(host="h3", session="session-3"),
    HostSuspected(host="h3", session="session-3", reason="no lease granted for 3 s"),
    HostDetached(host="h3", session="session-3", term=1, reason="no lease granted for 11 s"),
    HostFenced(host="h3", term=1, reason="no lease granted for 14.3 s", since=START_MS + 27_000),
    Resurrect(uid="uid-of-moves", epoch=1, host="h3", term=1, reason="no lease granted for 14.3 s"),
    ConfirmFenced(host="h3", revision=None),
    _under_lease("session-4"),
    Report(host="h3", session="session-4", destroyed=[Destroyed(uid="uid-of-moves", epoch=1)], rejoined=True),
    BeginIncarnation(incarnation=2, term=1),
    _under_lease("session-5"),
    Report(host="h3", session="session-5", rejoined=True),
    ConfirmFenced(host="h1", revision=None),
    HostSuspected(host="h3", session="session-5", reason="no lease granted for 3 s"),
    ConfirmOff(host="h3", revision=None),
    DeclareFailoverPolicy(
        name="patient",
        uid="uid-of-patient",
        spec=FailoverPolicySpec(restart=Restart.DELAYED, delay_s=300, priority=10, max_per_minute=20),
    ),
    _declared("waits", dataclasses.replace(_MOVES, recovery=dataclasses.replace(_MOVES.recovery, policy="patient"))),
    Hold(kind=HoldKind.MICROVM, namespace="demo", name="bad", reason="somebody looks at it"),
    Collect(
        trigger=Trigger.FAILED_MICROVM,
        subject=Subject(kind=SubjectKind.MICROVM, namespace="demo", name="bad", uid="uid-of-bad", host="h1"),
        since=START_MS + 15_000,
        epoch=1,
        reason="it failed: ImageNotFound: no such image",
    ),
    Release(kind=HoldKind.MICROVM, namespace="demo", name="bad"),
    _under_lease("session-6"),
    Report(host="h3", session="session-6", rejoined=True, leftovers=["qemu: folder /var/lib/flintlock/trash/x"]),
    replace(_placed("waits"), host="h3"),
    ActOnHost(host="h3", action=HostAction.DRAIN, max_parallel=2, allow_data_loss=True),
    MarkStaying(host="h3", uid="uid-of-waits", epoch=1_000_001, reason="no host takes it: there is no other"),
    Evict(host="h3", uid="uid-of-waits", epoch=1_000_001),
    Report(host="h3", session="session-6", destroyed=[Destroyed(uid="uid-of-waits", epoch=1_000_001)], leftovers=[]),
    HostEvacuated(host="h3"),
    DeclareHost(
        name="h3",
        uid="uid-of-h3",
        spec=HostSpec(mode=HostMode.MAINTENANCE, evacuation=Evacuation(max_parallel=3)),
        labels={"zone": "a"},
    ),
    DeclareGCPolicy(
        name="default",
        uid="uid-of-default",
        spec=GCPolicySpec(failed_microvm_after_s=0, unmanaged_microvm_after_s=604_800, lost_host_after_s=3600),
        labels={"team": "fleet"},
    ),
    Collect(
        trigger=Trigger.FINISHED_OPERATION,
        subject=Subject(kind=SubjectKind.OPERATION, name="op-000000000005-000"),
        since=1767225609000,
        reason="it ended: create of web succeeded",
        policy="default",
        policy_revision=52,
    ),
    CancelOverride(of="breaker"),
    OverrideBreaker(for_s=0, reason="ended before it began"),
    OverrideBreaker(for_s=1800, reason="the rack burnt down"),
    CancelOverride(of="breaker"),
    OverrideBreaker(for_s=600, reason="the other rack, too"),
    DeclareRole(
        name="web-team",
        uid="uid-of-web-team",
        spec=access.RoleSpec(
            rules=[
                access.Rule(
                    verbs=[access.Verb.READ, access.Verb.DECLARE, access.Verb.ACT],
                    kinds=[access.AccessKind.MICROVM],
                    namespaces=["demo"],
                    names=["web"],
                    labels={"team": "web"},
                ),
                access.Rule(verbs=[access.Verb.READ], kinds=[access.AccessKind.ANY]),
            ]
        ),
        labels={"team": "web"},
    ),
    DeclareRoleBinding(
        name="web-team",
        uid="uid-of-the-binding",
        spec=access.RoleBindingSpec(
            role="web-team",
            subjects=[
                access.AccessSubject(kind=access.AccessSubjectKind.USER, name="alice"),
                access.AccessSubject(kind=access.AccessSubjectKind.TOKEN, name="ci"),
                access.AccessSubject(kind=access.AccessSubjectKind.GROUP, name="web"),
            ],
            namespaces=["demo"],
        ),
    ),
    CreateApiToken(
        name="ci",
        uid="uid-of-ci",
        spec=api_tokens.ApiTokenSpec(
            user="oidc:alice",
            groups=["web"],
            limit=access.AccessLimit(verbs=[access.Verb.READ, access.Verb.DECLARE], namespaces=["demo"]),
            description="the pipeline",
        ),
        sha256="1" * 64,
        expires_at=START_MS + 86_400_000,
        inherited=[access.AccessLimit(verbs=[access.Verb.READ])],
    ),
    NoteApiTokenUses(used={"ci": START_MS + 65_000, "absent": START_MS}),
    RotateApiToken(
        name="ci",
        uid="uid-of-ci",
        sha256="2" * 64,
        expires_at=START_MS + 2 * 86_400_000,
        retired_until=START_MS + 3_600_000,
    ),
    CreateApiToken(
        name="spare",
        uid="uid-of-spare",
        spec=api_tokens.ApiTokenSpec(),
        sha256="3" * 64,
        expires_at=START_MS + 86_400_000,
    ),
    RevokeApiToken(name="spare", uid="uid-of-spare"),
    DeclareGCPolicy(
        name="default",
        uid="uid-of-default",
        spec=GCPolicySpec(lost_tombstone_after_s=3600, leftover_after_s=0, quarantined_volumes_after_s=172_800),
    ),
    Report(
        host="h3",
        session="session-6",
        left_behind=[
            _KEPT,
            Leftover(driver="qemu", kind=LeftoverKind.FOLDER, name="trash/uid-of-waits", bytes=4096, ours=True),
        ],
    ),
    Hold(kind=HoldKind.FOUND, host="h3", name=_KEPT.name, reason="the data is looked at"),
    Release(kind=HoldKind.FOUND, host="h3", name=_KEPT.name),
    Collect(
        trigger=Trigger.QUARANTINED_VOLUMES,
        subject=Subject(kind=SubjectKind.LEFTOVER, name=_KEPT.name, uid=_KEPT.uid, host="h3", driver=_KEPT.driver),
        since=START_MS + 68_000,
        epoch=1_000_001,
        reason="local volumes of microVM demo/waits, epoch 1000001, which was destroyed there (65536 bytes)",
        policy="default",
        policy_revision=64,
    ),
    Report(host="h3", session="session-6", left_behind=[]),
    Report(
        host="h3",
        session="session-6",
        unmanaged=[
            Unmanaged(
                native_id="uid-of-lost",
                driver="qemu",
                uid="uid-of-lost",
                namespace="demo",
                name="lost",
                epoch=7,
                ours=True,
            )
        ],
    ),
    Adopt(
        host="h3",
        key="qemu/uid-of-lost",
        epoch=7,
        generation=2,
        repair_seq=1,
        restart_seq=3,
        declaration=DeclareMicroVM(
            namespace="demo", name="lost", uid="uid-of-lost", spec=_SMALL, labels={"app": "web"}
        ),
    ),
    BeginAudit(node="n1"),
    DeclareNamespace(name="audited", uid="uid-of-audited", spec=NamespaceSpec()),
    Delete(kind=Kind.NAMESPACE, name="nowhere", reason="never there"),
    WitnessRequests(
        node="n1",
        requests=[
            Witnessed(
                at=1767225640000,
                actor=None,
                action="PUT /hosts/{name}",
                status=401,
                name="h1",
                count=7,
                origin=Origin(
                    address="192.0.2.7", request="r-1", trace="4bf92f3577b34da6a3ce929d0e0e4736", agent="curl"
                ),
            ),
            Witnessed(at=1767225641000, actor="alice", action="POST /raft/members", status=200),
        ],
    ),
    Delete(kind=Kind.NAMESPACE, name="audited", reason="no longer needed"),
    ExportedAudit(node="n1", through=3),
    DropAudit(through=2),
    EstablishAuthority(
        fingerprint="ab" * 32,
        certificate="-----BEGIN CERTIFICATE-----\n",
        key=Sealed(key_id="5f3c", wrapped="AQID", box="BAUG"),
    ),
    CreateJoinToken(
        id="token-1",
        sha256="cd" * 32,
        role=MemberKind.HOST,
        ttl_s=3600,
        uses=2,
        macs=["02:00:00:00:00:01"],
        cidrs=["10.0.0.0/8"],
    ),
    CreateJoinToken(id="token-2", sha256="ef" * 32, role=MemberKind.NODE, ttl_s=60, name="n2"),
    Join(
        redeems="token-1",
        sha256="cd" * 32,
        role=MemberKind.HOST,
        name="h9",
        serial="1a",
        expires_at=START_MS + 86_400_000,
        macs=["02:00:00:00:00:01"],
        address="10.1.2.3",
        authority="ab" * 32,
    ),
    RenewCertificate(
        kind=MemberKind.HOST,
        name="h9",
        presented="1a",
        presented_expires_at=START_MS + 86_400_000,
        serial="1b",
        expires_at=START_MS + 2 * 86_400_000,
        authority="ab" * 32,
    ),
    RevokeCertificates(kind=MemberKind.HOST, name="h9", serial="1a", reason="the disk was sold"),
    RevokeCertificates(kind=MemberKind.HOST, name="h9", reason="the host, too"),
    RevokeJoinToken(id="token-2"),
    DeclareMicroVMGroup(
        namespace="audited",
        name="fleet",
        uid="uid-of-fleet",
        spec=MicroVMGroupSpec(
            replicas=2,
            template=MicroVMSpec(vcpu=1, memory_in_mb=128, kernel=Kernel(image="demo/kernel:6.1")),
            spread=GroupSpread(by="zone", max_per=1),
            rollout=Rollout(max_surge=0, max_unavailable=1, ready_deadline_s=60),
        ),
        labels={"tier": "front"},
    ),
    StepGroup(
        namespace="audited",
        name="fleet",
        uid="uid-of-fleet",
        generation=1,
        add=[NewMember(name="fleet-1", uid="uid-of-fleet-1"), NewMember(name="fleet-2", uid="uid-of-fleet-2")],
    ),
    StepGroup(
        namespace="audited",
        name="fleet",
        uid="uid-of-fleet",
        generation=1,
        renew=["uid-of-fleet-1"],
        stall=Stall(reason="ReadyDeadlineExceeded", message="1 member is late"),
    ),
    Delete(kind=Kind.MICROVM_GROUP, namespace="audited", name="fleet"),
    StepGroup(
        namespace="audited",
        name="fleet",
        uid="uid-of-fleet",
        generation=1,
        end=["uid-of-fleet-1", "uid-of-fleet-2"],
    ),
    RotateAuthority(
        fingerprint="12" * 32,
        certificate="-----BEGIN CERTIFICATE-----\n",
        key=Sealed(key_id="5f3c", wrapped="AQID", box="BAUG"),
        succeeds="ab" * 32,
        crossed="-----BEGIN CERTIFICATE-----\n",
    ),
    AbortRotation(fingerprint="ab" * 32),
    RetireAuthority(fingerprint="12" * 32),
    AddDataKey(id="dk-1", key=Sealed(key_id="5f3c", wrapped="AQID", box="BAUG"), replaces=None),
    DeclareNamespace(name="secret", uid="uid-of-secret", spec=NamespaceSpec()),
    DeclareMicroVM(
        namespace="secret",
        name="vault",
        uid="uid-of-vault",
        spec=dataclasses.replace(_SMALL, sensitive_metadata={"user-data": _DIGEST}),
        sealed={"user-data": SealedValue(key_id="dk-1", box="BwgJ")},
    ),
    AddDataKey(id="dk-2", key=Sealed(key_id="5f3c", wrapped="AQID", box="BAUG"), replaces="dk-1"),
    DropDataKey(id="dk-1"),
    Reseal(
        values={
            "uid-of-vault": {
                "user-data": Resealed(digest=_DIGEST, sealed=SealedValue(key_id="dk-2", box="CgsM")),
            }
        }
    ),
    DropDataKey(id="dk-1"),
    RaiseMachineVersion(version=1),
]
_AUDITED = _COMMANDS.index(BeginAudit(node="n1"))
_ORIGIN = Origin(address="192.0.2.1", request="r-2", trace="0af7651916cd43dd8448eb211c80319c", agent="flintctl")


def history() -> list[Envelope]:
    """The envelopes in order; every fifth has an idempotency key and a trace, those after `BeginAudit` an origin."""
    return [
        seal(
            command,
            id=f"command-{number:03d}",
            at=START_MS + number * 1000,
            actor="alice",
            key=f"key-{number}" if number % 5 == 0 else None,
            trace=f"trace-{number}" if number % 5 == 0 else None,
            origin=_ORIGIN if number > _AUDITED else None,
        )
        for number, command in enumerate(_COMMANDS)
    ]
