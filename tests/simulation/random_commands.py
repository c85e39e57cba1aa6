"""Random histories for the machine: plausible commands mostly, nonsense often, from one seed.

Values come from small pools, so that commands meet: the same names, uids, hosts, sessions, epochs and generations turn
up again and again, right, stale or invented. `Source` is all the randomness there is, so hypothesis can shrink a
failure and a plain seed can replay one in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from controlplane.decide.gc import plan
from controlplane.machine.authorities import trusted
from controlplane.machine.secrets import active_key
from controlplane.machine.state import State
from controlplane.model import access
from controlplane.model.api_tokens import ApiTokenSpec
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
from controlplane.model.commands.versions import MACHINE_VERSION
from controlplane.model.credentials import MemberKind, Sealed
from controlplane.model.gc import Leftover, LeftoverKind, Subject, SubjectKind, Trigger
from controlplane.model.groups import MicroVMGroupSpec
from controlplane.model.resources import (
    Amount,
    Bid,
    DriverFacts,
    Failure,
    HostPhase,
    InterfaceFacts,
    Inventory,
    MicroVM,
    MicroVMPhase,
    Observation,
    ObservedPower,
    Unmanaged,
)
from controlplane.model.secrets import SealedValue
from controlplane.model.spec import (
    Evacuation,
    FailoverPolicySpec,
    GCPolicySpec,
    HostFailure,
    HostMode,
    HostSpec,
    Kernel,
    MicroVMSpec,
    NamespaceSpec,
    OnDetach,
    Placement,
    PlacementPolicySpec,
    PowerState,
    Recovery,
    Restart,
    Spread,
    Volume,
    VolumeKind,
)
from controlplane.model.types import Kind, replace

T = TypeVar("T")
KEEPS_NOTHING = GCPolicySpec(
    failed_microvm_after_s=0,
    unmanaged_microvm_after_s=0,
    lost_host_after_s=0,
    lost_tombstone_after_s=0,
    leftover_after_s=0,
    quarantined_volumes_after_s=0,
    finished_operation_after_s=0,
    audit_records_after_s=0,
)

NAMES = ("a", "b", "c")
STRANGE = ("", "a/b", "A", "a" * 64, "\x00", "é\n", "None")
INTEGERS = (0, 1, 2, 3, 4, 7, -1, 2**31, 2**40, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, 0.5, 1.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e308)
DIGESTS = tuple(f"hmac-sha256:{digit * 64}" for digit in "12")
LABELS = ({}, {"zone": "a"}, {"zone": "b"}, {"zone": "a", "app": "web"})


class Source(Protocol):
    """Where choices come from."""

    def pick(self, options: Sequence[T]) -> T: ...

    def chance(self, percent: int) -> bool: ...


class RandomCommands:
    """Makes one envelope after the other; looks at the state only to make plausible ones."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._number = 0
        self._kinds: tuple[Callable[[State], Command], ...] = (
            self._namespace,
            self._policy,
            self._host,
            self._microvm,
            self._microvm,
            self._delete,
            self._act,
            self._connected,
            self._connected,
            self._lost,
            self._report,
            self._report,
            self._report,
            self._place,
            self._place,
            self._place,
            self._unplaced,
            self._batch,
            self._microvm,
            self._place,
            self._report,
            self._suspected,
            self._heard,
            self._detached,
            self._fenced,
            self._fenced,
            self._confirm,
            self._override,
            self._resurrect,
            self._resurrect,
            self._rejoined,
            self._rejoined,
            self._begin,
            self._raise_version,
            self._hold,
            self._release,
            self._collect,
            self._adopt,
            self._adopt,
            self._act_on_host,
            self._evict,
            self._evict,
            self._evict,
            self._stays,
            self._left,
            self._left,
            self._evacuated,
            self._api_token,
            self._api_token,
            self._audit,
            self._credential,
            self._credential,
            self._secret,
            self._secret,
            self._group,
            self._step,
        )

    def opening(self) -> list[Envelope]:
        """A namespace and hosts with agents, so that histories get somewhere."""
        commands: list[Command] = [DeclareNamespace(name="a", uid="ns-a", spec=NamespaceSpec())]
        for name in ("a", "b"):
            commands.append(DeclareHost(name=name, uid=f"host-{name}", spec=HostSpec(), labels={"zone": name}))
            commands.append(
                AgentConnected(
                    host=name,
                    uid=f"host-{name}",
                    session="a",
                    node="n1",
                    inventory=_inventory(4, 4, 0),
                    lease_ttl_ms=10_000,
                )
            )
        return [self._seal(command) for command in commands]

    def next(self, state: State) -> Envelope:
        return self._seal(self._pick(self._kinds)(state))

    # -- choices -------------------------------------------------------------------------------------------------------

    def _pick(self, options: Sequence[T]) -> T:
        return self._source.pick(options)

    def _nonsense(self) -> bool:
        return self._source.chance(4)

    def _name(self) -> str:
        return self._pick(STRANGE) if self._nonsense() else self._pick(NAMES)

    def _integer(self, *usual: int) -> int:
        return self._pick(INTEGERS) if self._nonsense() or not usual else self._pick(usual)

    def _float(self) -> float:
        return self._pick(FLOATS) if self._nonsense() else self._pick((0.0, 0.25, 0.5, 0.75))

    def _labels(self) -> dict[str, str]:
        return self._pick(LABELS)

    def _when(self, revision: int | None) -> Precondition:
        if not self._source.chance(15):
            return Precondition()
        return Precondition(
            revision=self._pick((None, revision, 1, self._integer(0))), create_only=self._source.chance(30)
        )

    def _uid(self) -> str:
        return f"{self._pick(NAMES)}{self._pick(range(6))}"

    def _vm(self, state: State) -> MicroVM | None:
        """One of the microVMs there are."""
        return state.microvms[self._pick(sorted(state.microvms))] if state.microvms else None

    def _seal(self, command: Command, *, keys: bool = True) -> Envelope:
        self._number += 1
        return seal(
            command,
            id=f"e{self._number}",
            at=self._integer(self._number * 1000, self._number * 50_000_000),
            actor=self._pick(("alice", "bob")),
            key=self._pick(("k1", "k2", "k3", "k4")) if keys and self._source.chance(10) else None,
        )

    # -- users ---------------------------------------------------------------------------------------------------------

    def _namespace(self, state: State) -> Command:
        name = self._name()
        old = state.namespaces.get(name)
        spec = NamespaceSpec()
        if self._source.chance(20):
            spec = NamespaceSpec(
                max_microvms=self._pick((None, self._integer(0, 1, 3))),
                max_vcpu=self._pick((None, self._integer(2, 8))),
                max_memory_in_mb=self._pick((None, self._integer(2, 8))),
            )
        return DeclareNamespace(
            name=name,
            uid=self._uid(),
            spec=spec,
            labels=self._labels(),
            when=self._when(old.meta.intent_revision if old is not None else None),
        )

    def _policy(self, state: State) -> Command:
        name = self._name()
        if self._source.chance(40):
            if self._source.chance(40):
                return self._access(name)
            return DeclareFailoverPolicy(
                name=name,
                uid=self._uid(),
                spec=FailoverPolicySpec(
                    restart=self._pick(tuple(Restart)),
                    delay_s=self._pick((None, None, 60)),
                    max_per_minute=self._pick((None, 1)),
                ),
            )
        if self._source.chance(20):
            kept = self._pick((None, 60))
            spec = GCPolicySpec(failed_microvm_after_s=kept, lost_host_after_s=kept)
            return DeclareGCPolicy(name=self._pick(("default", name)), uid=self._uid(), spec=spec)
        old = state.policies.get(name)
        spec = PlacementPolicySpec(
            required_host_labels=self._pick(({}, {}, {"zone": "a"})),
            preferred_host_labels=self._labels(),
            spread=self._pick((None, None, self._spread())),
        )
        return DeclarePlacementPolicy(
            name=name,
            uid=self._uid(),
            spec=spec,
            when=self._when(old.meta.intent_revision if old is not None else None),
        )

    def _api_token(self, state: State) -> Command:
        name, sha256 = self._name(), self._pick(("0", "1", "2", "x")) * 64
        old = state.api_tokens.get(name)
        uid = old.uid if old is not None else self._uid()
        expires_at = self._integer(1_000, 2_000_000_000_000)
        match self._pick(("create", "create", "rotate", "revoke", "use")):
            case "create":
                spec = ApiTokenSpec(user=self._pick((None, "oidc:alice")), groups=["web"])
                return CreateApiToken(name=name, uid=self._uid(), spec=spec, sha256=sha256, expires_at=expires_at)
            case "rotate":
                retired_until = self._integer(0, expires_at)
                return RotateApiToken(
                    name=name, uid=uid, sha256=sha256, expires_at=expires_at, retired_until=retired_until
                )
            case "revoke":
                return RevokeApiToken(name=name, uid=uid)
            case _:
                return NoteApiTokenUses(used={name: self._integer(0, expires_at)})

    def _audit(self, state: State) -> Command:
        node, through = self._name(), self._integer(state.audit_head, max(state.audit_head - 1, 0))
        match self._pick(("begin", "witness", "export", "drop", "drop")):
            case "begin":
                return BeginAudit(node=node)
            case "witness":
                seen = Witnessed(at=self._integer(1_000), actor=self._pick((None, "alice")), action="GET", status=403)
                return WitnessRequests(node=node, requests=[seen] * self._pick((0, 1, 3)))
            case "export":
                return ExportedAudit(node=node, through=through)
            case _:
                return DropAudit(through=through)

    def _credential(self, state: State) -> Command:
        """About the cluster's authority, who joins, and what was issued."""
        name, key, kind = self._name(), self._name(), self._pick((MemberKind.HOST, MemberKind.HOST, MemberKind.NODE))
        serial, expires_at = self._pick(("1", "2", "3")), self._integer(1_000, 2_000_000_000_000)
        sealed = Sealed(key_id="k", wrapped="AA", box="AA")
        signs = trusted(state)[0].fingerprint if trusted(state) else key
        steps = ("found", "token", "join", "join", "renew", "renew", "revoke", "end", "rotate", "abort", "retire")
        match self._pick(steps):
            case "found":
                return EstablishAuthority(fingerprint=key, certificate="PEM", key=sealed)
            case "rotate":
                return RotateAuthority(
                    fingerprint=key,
                    certificate="PEM",
                    key=sealed,
                    succeeds=self._pick((signs, signs, key)),
                    crossed="X",
                )
            case "abort":
                return AbortRotation(fingerprint=trusted(state)[-1].fingerprint if trusted(state) else key)
            case "retire":
                last = trusted(state)[-1].fingerprint if trusted(state) else key
                return RetireAuthority(fingerprint=last, force=self._source.chance(50))
            case "token":
                ttl_s = self._pick((0, 60, 86_400, 86_400))
                return CreateJoinToken(id=key, sha256="1" * 64, role=kind, ttl_s=ttl_s, uses=self._pick((0, 1, 2)))
            case "join":
                if state.join_tokens and self._source.chance(70):
                    known = self._pick(tuple(state.join_tokens[each] for each in sorted(state.join_tokens)))
                    key, kind = known.id, known.role
                sha256 = self._pick(("1", "1", "2")) * 64
                return Join(redeems=key, sha256=sha256, role=kind, name=name, serial=serial, expires_at=expires_at)
            case "renew":
                return RenewCertificate(
                    kind=kind,
                    name=name,
                    presented=self._pick(("1", "2", "3")),
                    presented_expires_at=expires_at,
                    serial=serial,
                    expires_at=expires_at,
                    authority=signs,
                )
            case "revoke":
                only = self._pick((None, serial))
                return RevokeCertificates(kind=kind, name=name, reason=self._pick(("", "lost", "lost")), serial=only)
            case _:
                return RevokeJoinToken(id=key)

    def _secret(self, state: State) -> Command:
        """About data keys, and what is sealed with them."""
        keys = sorted(state.data_keys)
        key = self._pick((*keys, self._name()))
        match self._pick(("add", "reseal", "reseal", "drop", "drop")):
            case "add":
                active = active_key(state)
                replaces = self._pick((None, active.id, active.id)) if active is not None else None
                sealed = Sealed(key_id="k", wrapped="AA", box="AA")
                return AddDataKey(id=f"k{self._number}", key=sealed, replaces=replaces)
            case "reseal":
                value = Resealed(digest=self._pick(DIGESTS), sealed=SealedValue(key_id=key, box=f"{self._number}"))
                uids = sorted(uid for uid, vm in state.microvms.items() if vm.sealed)
                return Reseal(values={uid: {"user-data": value} for uid in uids[:2]} or {"gone": {"user-data": value}})
            case _:
                return DropDataKey(id=key)

    def _sealed(self, state: State) -> dict[str, SealedValue]:
        """Of one microVM in three, once there is a key; now and then with none that is there."""
        if not state.data_keys or not self._source.chance(35):
            return {}
        key = self._pick((*sorted(state.data_keys), *sorted(state.data_keys), self._name()))
        return {"user-data": SealedValue(key_id=key, box=f"{self._number}")}

    def _access(self, name: str) -> Command:
        if self._source.chance(50):
            rule = access.Rule(
                verbs=[access.Verb.READ], kinds=[self._pick(tuple(access.AccessKind))], labels=self._labels()
            )
            return DeclareRole(
                name=self._pick((name, name, "viewer")), uid=self._uid(), spec=access.RoleSpec(rules=[rule])
            )
        spec = access.RoleBindingSpec(
            role=self._pick(("viewer", "host", self._name())),
            subjects=[access.AccessSubject(kind=access.AccessSubjectKind.TOKEN, name=name)],
        )
        return DeclareRoleBinding(name=name, uid=self._uid(), spec=spec)

    def _spread(self) -> Spread:
        return Spread(by=self._pick(("host", "zone")), max_per=self._integer(1, 2), match_labels=self._labels())

    def _host(self, state: State) -> Command:
        name = self._name()
        old = state.hosts.get(name)
        return DeclareHost(
            name=name,
            uid=self._uid(),
            spec=HostSpec(
                schedulable=not self._source.chance(10),
                mode=self._pick(list(HostMode)) if self._source.chance(15) else HostMode.ACTIVE,
                evacuation=Evacuation(max_parallel=self._integer(1, 2), allow_data_loss=self._source.chance(50)),
            ),
            labels=self._labels(),
            when=self._when(old.meta.intent_revision if old is not None else None),
        )

    def _microvm(self, state: State) -> Command:
        namespace, name = self._name(), self._name()
        if state.namespaces and not self._nonsense():
            namespace = self._pick(sorted(state.namespaces))
        old = state.microvm(namespace, name)
        sealed = self._sealed(state)
        placement = Placement()
        if self._source.chance(25):
            placement = Placement(
                host=self._pick((None, self._name())),
                policy=self._pick((None, self._name())),
                required_host_labels=self._pick(({}, {"zone": "a"})),
                spread=self._pick((None, self._spread())),
            )
        spec = MicroVMSpec(
            vcpu=self._integer(1, 1, 2, 3),
            memory_in_mb=self._integer(1, 1, 2, 3),
            kernel=Kernel(image=self._pick(("k:1", "k:2"))),
            provider="qemu" if self._nonsense() else None,
            power_state=self._pick(list(PowerState)),
            placement=placement,
            recovery=self._recovery(),
            root_volume=Volume(kind=VolumeKind.LOCAL) if self._source.chance(10) else None,
            sensitive_metadata={name: self._pick(DIGESTS) for name in sealed},
        )
        uid = self._uid()
        if any(uid in host.stale for host in state.hosts.values()):
            # No proposer of ours makes a uid twice, and an order to destroy is about the first of it.
            uid = f"{uid}-{self._number}"
        return DeclareMicroVM(
            namespace=namespace,
            name=name,
            uid=uid,
            spec=spec,
            labels=self._labels(),
            when=self._when(old.meta.intent_revision if old is not None else None),
            sealed=sealed,
        )

    def _group(self, state: State) -> Command:
        namespace, name = self._name(), self._name()
        old = state.microvm_group(namespace, name)
        template = MicroVMSpec(
            vcpu=1,
            memory_in_mb=1,
            kernel=Kernel(image=self._pick(("k:1", "k:2"))),
            metadata=self._pick(({}, {"a": "b"})),
            recovery=self._recovery(),
            power_state=PowerState.STOPPED if self._nonsense() else PowerState.RUNNING,
        )
        return DeclareMicroVMGroup(
            namespace=namespace,
            name=name,
            uid=self._uid(),
            spec=MicroVMGroupSpec(replicas=self._integer(0, 1, 2), template=template),
            labels=self._labels(),
            when=self._when(old.meta.intent_revision if old is not None else None),
        )

    def _step(self, state: State) -> Command:
        """Of a group that is there, as a rule: any of its members, and microVMs that are none."""
        groups = list(state.microvm_groups.values())
        if not groups or self._nonsense():
            return StepGroup(namespace=self._name(), name=self._name(), uid=self._uid(), generation=self._integer(1))
        group = self._pick(groups)
        members = [vm.meta.uid for vm in state.members_of(group.meta.uid)] + [self._uid()]
        new = NewMember(name=f"{group.meta.name}-{self._number}", uid=f"{self._uid()}-{self._number}")
        return StepGroup(
            namespace=str(group.meta.namespace),
            name=group.meta.name,
            uid=group.meta.uid,
            generation=group.meta.generation + self._pick((0, 0, 0, 1)),
            end=[each for each in members if self._source.chance(20)],
            renew=[each for each in members if self._source.chance(40)],
            add=[new] if self._source.chance(60) else [],
            stall=self._pick((None, None, Stall(reason="Late", message="not ready"))),
        )

    def _recovery(self) -> Recovery:
        move = self._source.chance(75)
        return Recovery(
            on_host_failure=HostFailure.RESTART_ELSEWHERE if move else HostFailure.NEVER,
            on_detach=self._pick((None, None, None, None, *OnDetach)),
            allow_data_loss=self._source.chance(60),
        )

    def _delete(self, state: State) -> Command:
        kind = self._pick((Kind.MICROVM, Kind.MICROVM, *Kind))
        namespace, name = self._pick((None, self._name())), self._name()
        vm = self._vm(state)
        if kind is Kind.MICROVM and vm is not None:
            namespace, name = vm.meta.namespace, vm.meta.name
        return Delete(
            kind=kind,
            namespace=namespace,
            name=name,
            revision=self._pick((None, None, None, self._integer(1, state.revision))),
        )

    def _act(self, state: State) -> Command:
        vm = self._vm(state)
        return Act(
            namespace=str(vm.meta.namespace) if vm is not None else self._name(),
            name=vm.meta.name if vm is not None else self._name(),
            action=self._pick(list(Action)),
            revision=self._pick((None, None, self._integer(1))),
        )

    # -- agents --------------------------------------------------------------------------------------------------------

    def _connected(self, state: State) -> Command:
        amounts = (self._integer(4, 4, 2), self._integer(4, 4, 2), self._integer(0, 0, 1))
        return AgentConnected(
            host=self._name(),
            uid=self._uid(),
            session=self._pick(NAMES),
            node=self._pick(("n1", "n2")),
            inventory=_inventory(
                *amounts, fences=not self._source.chance(15), boot_id=self._pick(("b", "b", "b", "c"))
            ),
            lease_ttl_ms=self._pick((10_000, 10_000, 5_000, 0)),
        )

    def _host_and_session(self, state: State) -> tuple[str, str]:
        host = self._pick(sorted(state.hosts)) if state.hosts and not self._nonsense() else self._name()
        known = state.hosts.get(host)
        session = known.session if known is not None and known.session is not None else self._pick(NAMES)
        return host, self._pick(NAMES) if self._source.chance(10) else session

    def _lost(self, state: State) -> Command:
        host, session = self._host_and_session(state)
        return AgentLost(host=host, session=session, reason="silent")

    def _report(self, state: State) -> Command:
        host, session = self._host_and_session(state)
        here = list(state.microvms_on(host))
        vms = here if here and not self._source.chance(10) else [vm for vm in (self._vm(state),) if vm is not None]
        gone = [(vm.meta.uid, vm.epoch) for vm in vms if self._source.chance(30)]
        gone += [order for order in self._orders(state, host) if self._source.chance(60)]
        return Report(
            host=host,
            session=session,
            observed=[self._observation(vm) for vm in vms if self._source.chance(70)],
            destroyed=[Destroyed(uid=uid, epoch=self._integer(epoch, epoch, epoch + 1)) for uid, epoch in gone],
            rejoined=self._source.chance(20),
            unmanaged=self._pick((None, None, [], [self._unmanaged()], [self._unmanaged(), self._unmanaged()])),
        )

    def _orders(self, state: State, host: str) -> list[tuple[str, int]]:
        return sorted(state.hosts[host].stale.items()) if host in state.hosts else []

    def _rejoined(self, state: State) -> Command:
        """A report that a rejoining host carried out all its orders."""
        host = self._host_in(state, HostPhase.REJOINING)
        known = state.hosts.get(host)
        return Report(
            host=host,
            session=(known.session if known is not None else None) or "a",
            destroyed=[Destroyed(uid=uid, epoch=epoch) for uid, epoch in self._orders(state, host)],
            rejoined=True,
        )

    def _observation(self, vm: MicroVM) -> Observation:
        failure = None
        if self._source.chance(15):
            failure = Failure(
                code="ImageNotFound", message=self._pick(("one", "another")), permanent=self._source.chance(60)
            )
        return Observation(
            uid=vm.meta.uid,
            host=self._name(),
            epoch=self._integer(vm.epoch, vm.epoch, vm.epoch, vm.epoch - 1),
            at=self._integer(5),
            power=self._pick((ObservedPower(vm.spec.power_state.value), *ObservedPower)),
            generation=self._pick((None, vm.meta.generation, vm.meta.generation, self._integer(1))),
            repair_seq=self._integer(vm.repair_seq, vm.repair_seq, 0),
            restart_seq=self._integer(vm.restart_seq, vm.restart_seq, 0),
            ready=self._source.chance(50),
            vcpu=self._pick((None, vm.spec.vcpu, vm.spec.vcpu, self._integer(1))),
            memory_in_mb=self._pick((None, vm.spec.memory_in_mb, self._integer(1))),
            failure=failure,
            details={"pid": self._pick(("1", "2"))},
            interfaces={"eth1": InterfaceFacts(host_device="tap0", mac_address="02:00:00:00:00:01")},
        )

    def _unmanaged(self) -> Unmanaged:
        return Unmanaged(
            native_id=self._pick(("1", "2")),
            driver=self._pick(("qemu", "simulated")),
            uid=self._pick((None, self._uid())),
            since=self._integer(0),
            epoch=self._pick((None, 1, self._integer(3))),
            ours=self._source.chance(70),
        )

    # -- garbage collection --------------------------------------------------------------------------------------------

    def _held(self, state: State) -> dict[str, Any]:
        vm, host = self._vm(state), self._name()
        found = state.hosts[host].unmanaged if host in state.hosts else []
        return self._pick(
            (
                {"kind": HoldKind.HOST, "name": host},
                {"kind": HoldKind.FOUND, "host": host, "name": found[0].native_id if found else "1"},
                {
                    "kind": HoldKind.MICROVM,
                    "namespace": vm.meta.namespace if vm is not None else None,
                    "name": vm.meta.name if vm is not None else self._name(),
                },
            )
        )

    def _hold(self, state: State) -> Command:
        return Hold(**self._held(state), reason=self._pick(("look", "look", "")))

    def _release(self, state: State) -> Command:
        return Release(**self._held(state))

    def _adopt(self, state: State) -> Command:
        """Of what a host told of, mostly; else something like it."""
        told = [(name, each) for name, host in sorted(state.hosts.items()) for each in host.unmanaged]
        host, found = self._pick(told) if told else (self._name(), None)
        declaration = self._microvm(state)
        assert isinstance(declaration, DeclareMicroVM)
        known = found if found is not None and not self._nonsense() else None
        return Adopt(
            host=host,
            key=known.key if known is not None else "qemu/x",
            epoch=(known.epoch if known is not None else None) or self._integer(1),
            generation=self._integer(1),
            declaration=replace(declaration, uid=(known.uid if known is not None else None) or self._uid()),
        )

    def _collect(self, state: State) -> Command:
        """Of a plan of now, mostly; else something like it."""
        due = plan(state, KEEPS_NOTHING, now_ms=2**50).collect
        if due and not self._nonsense():
            return self._pick(due).command
        subject = Subject(kind=SubjectKind.HOST, name=self._name(), uid=self._uid(), host=self._name(), driver="qemu")
        return Collect(
            trigger=self._pick(tuple(Trigger)),
            subject=subject,
            since=self._integer(0),
            epoch=self._integer(1),
            reason="x",
        )

    # -- leases --------------------------------------------------------------------------------------------------------

    def _host_in(self, state: State, *phases: HostPhase) -> str:
        """A host in one of the phases, if there is one."""
        fitting = sorted(name for name, host in state.hosts.items() if host.phase in phases)
        return self._pick(fitting) if fitting and not self._nonsense() else self._name()

    def _session_of(self, state: State, host: str) -> str | None:
        known = state.hosts.get(host)
        return self._pick(NAMES) if known is None or self._source.chance(10) else known.session

    def _suspected(self, state: State) -> Command:
        host = self._host_in(state, HostPhase.READY)
        return HostSuspected(host=host, session=self._session_of(state, host) or "a", reason="silent")

    def _heard(self, state: State) -> Command:
        host = self._host_in(state, HostPhase.SUSPECT)
        return HostHeard(host=host, session=self._session_of(state, host) or "a")

    def _detached(self, state: State) -> Command:
        host = self._host_in(state, HostPhase.SUSPECT, self._pick((HostPhase.REJOINING, HostPhase.READY)))
        return HostDetached(host=host, session=self._session_of(state, host), term=self._term(), reason="no lease")

    def _fenced(self, state: State) -> Command:
        host = self._host_in(state, HostPhase.DETACHED)
        known = state.hosts.get(host)
        since = known.since if known is not None else self._integer(0)
        return HostFenced(host=host, term=self._term(), reason="waited", since=self._pick((None, since, since, 1)))

    def _confirm(self, state: State) -> Command:
        host = self._host_in(state, HostPhase.SUSPECT, HostPhase.DETACHED, HostPhase.FENCED)
        revision = self._pick((None, None, None, self._integer(1)))
        return self._pick((ConfirmOff, ConfirmOff, ConfirmFenced))(host=host, revision=revision)

    def _override(self, _: State) -> Command:
        if self._source.chance(50):
            return CancelOverride(of=self._pick(("breaker", "breaker", "nothing")))
        return OverrideBreaker(for_s=self._integer(0, 1, 60), reason=self._pick(("", "why not")))

    def _resurrect(self, state: State) -> Command:
        fenced = [name for name in sorted(state.on_host) if state.hosts[name].phase is HostPhase.FENCED]
        host = self._pick(fenced) if fenced and not self._nonsense() else self._name()
        vms = list(state.microvms_on(host)) or [vm for vm in (self._vm(state),) if vm is not None]
        vm = self._pick(vms) if vms else None
        epoch = vm.epoch if vm is not None else 1
        return Resurrect(
            uid=vm.meta.uid if vm is not None else self._uid(),
            epoch=self._integer(epoch, epoch, epoch, epoch - 1),
            host=host,
            term=self._term(),
            reason="fenced",
        )

    def _begin(self, state: State) -> Command:
        number = state.incarnation
        return BeginIncarnation(incarnation=self._integer(number, number, number, number + 1), term=self._term())

    def _raise_version(self, _: State) -> Command:
        # One that this build does not know would stop it.
        return RaiseMachineVersion(version=self._pick(range(MACHINE_VERSION + 1)))

    # -- emptying hosts ------------------------------------------------------------------------------------------------

    def _act_on_host(self, state: State) -> Command:
        # What is to be emptied should hold something, or there is nothing to see.
        full = self._full(state)
        host = self._pick(full) if full and not self._nonsense() else self._name()
        known = state.hosts.get(host)
        return ActOnHost(
            host=host,
            action=self._pick((*HostAction, HostAction.DRAIN, HostAction.DRAIN)),
            max_parallel=self._pick((None, None, self._integer(1, 2, 3))),
            allow_data_loss=self._pick((None, None, True)),
            revision=self._pick((None, None, None, known.meta.intent_revision if known is not None else 1)),
        )

    def _full(self, state: State) -> list[str]:
        """Ready hosts that hold something."""
        return [
            name
            for name, host in sorted(state.hosts.items())
            if host.phase is HostPhase.READY and state.on_host.get(name)
        ]

    def _evacuating(self, state: State) -> tuple[str, MicroVM | None]:
        """A host that is to be emptied, if there is one, and a microVM that may be there."""
        names = [name for name, host in sorted(state.hosts.items()) if host.evacuating is not None]
        names = [name for name in names if name in self._full(state)] or names
        host = self._pick(names) if names and not self._nonsense() else self._name()
        here = list(state.microvms_on(host))
        return host, self._pick(here) if here and not self._nonsense() else self._vm(state)

    def _evict(self, state: State) -> Command:
        host, vm = self._evacuating(state)
        uid, epoch = (vm.meta.uid, vm.epoch) if vm is not None else (self._uid(), 1)
        return Evict(host=host, uid=uid, epoch=self._integer(epoch, epoch, epoch, epoch - 1))

    def _stays(self, state: State) -> Command:
        host, vm = self._evacuating(state)
        uid, epoch = (vm.meta.uid, vm.epoch) if vm is not None else (self._uid(), 1)
        reason = self._pick(("pinned", "no host takes it"))
        return MarkStaying(host=host, uid=uid, epoch=epoch, reason=reason, halt=self._source.chance(40))

    def _left(self, state: State) -> Command:
        """A report that a host has ended what it was told to end, and lets nothing run that it is to halt."""
        leaving = [
            vm.placement.host for vm in state.microvms.values() if vm.phase is MicroVMPhase.MOVING and vm.placement
        ]
        host = self._pick(leaving) if leaving else self._evacuating(state)[0]
        known, here = state.hosts.get(host), list(state.microvms_on(host))
        still = [
            replace(self._observation(vm), epoch=vm.epoch, halted=True, power=ObservedPower.STOPPED)
            for vm in here
            if vm.is_halted
        ]
        return Report(
            host=host,
            session=(known.session if known is not None else None) or "a",
            observed=still,
            destroyed=[Destroyed(uid=vm.meta.uid, epoch=vm.epoch) for vm in here if vm.is_tombstone],
            left_behind=self._pick((None, [], self._remains(here))),
        )

    def _remains(self, here: list[MicroVM]) -> list[Leftover]:
        uid = self._pick(here).meta.uid if here and self._source.chance(30) else "gone"
        ours = not self._source.chance(20)
        return [
            Leftover(driver="qemu", kind=LeftoverKind.TAP, name="tap/fl0", uid=uid, epoch=1, ours=ours),
            Leftover(driver="qemu", kind=LeftoverKind.VOLUMES, name="quarantine/x-1", uid=uid, epoch=1, ours=ours),
        ]

    def _evacuated(self, state: State) -> Command:
        return HostEvacuated(host=self._evacuating(state)[0])

    def _term(self) -> int:
        return 2 if self._source.chance(8) else 1

    # -- the scheduler -------------------------------------------------------------------------------------------------

    def _waiting(self, state: State) -> tuple[str, int]:
        """Uid and generation of what may wait for a host."""
        waiting = sorted(state.pending) if state.pending and not self._nonsense() else sorted(state.microvms)
        if not waiting:
            return self._uid(), self._integer(1)
        uid = self._pick(waiting)
        return uid, self._integer(state.microvms[uid].meta.generation)

    def _bids(self) -> list[Bid]:
        return [
            Bid(host=self._name(), score=self._pick((None, self._float())), parts={"load": self._float()})
            for _ in range(self._pick((0, 1, 2)))
        ]

    def _place(self, state: State) -> Command:
        uid, generation = self._waiting(state)
        host = self._name() if self._source.chance(20) else self._host_in(state, HostPhase.READY)
        return Place(uid=uid, generation=generation, host=host, score=self._float(), bids=self._bids())

    def _unplaced(self, state: State) -> Command:
        uid, generation = self._waiting(state)
        message = self._pick(("full", "none"))
        return MarkUnplaced(uid=uid, generation=generation, reason="NoHostFits", message=message, bids=self._bids())

    def _batch(self, state: State) -> Command:
        makers = self._kinds[:7] if not self._nonsense() else self._kinds
        return Batch(
            commands=[self._seal(self._pick(makers)(state), keys=False) for _ in range(self._pick((0, 1, 2, 3)))]
        )


def _inventory(vcpu: int, memory_in_mb: int, microvms: int, *, fences: bool = True, boot_id: str = "b") -> Inventory:
    return Inventory(
        agent_version="1",
        boot_id=boot_id,
        drivers=[DriverFacts(name="simulated", simulated=True, fences=fences)],
        capacity=Amount(microvms=microvms, vcpu=vcpu, memory_in_mb=memory_in_mb),
    )
