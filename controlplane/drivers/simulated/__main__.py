"""Changes simulated microVMs behind the agent's back, from another process: for demonstrations and rehearsals.

    python -m controlplane.drivers.simulated kill --state-dir DIR demo/web-a

It writes to the driver's own file; the driver notices within `driver.POLL_S`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from controlplane.drivers.simulated import lease, power
from controlplane.drivers.simulated.driver import moment
from controlplane.drivers.simulated.store import DRIVER, FILE_NAME, Fault, Row, Store
from controlplane.model.gc import LeftoverKind
from controlplane.model.resources import ObservedPower
from controlplane.ports import DriverError, Remains

_CALLS = ("create", "update", "set_power", "destroy", "list", "check", "renew", "clear")
_POSSIBLE_IN = {
    "kill": {ObservedPower.RUNNING, ObservedPower.PAUSED},
    "pause": {ObservedPower.RUNNING},
    "resume": {ObservedPower.PAUSED},
    "set-vcpu": {ObservedPower.RUNNING, ObservedPower.PAUSED},
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m controlplane.drivers.simulated",
        description="Change simulated microVMs behind the agent's back.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, target: str | None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--state-dir", type=Path, required=True, help="the simulated driver's directory of one host")
        if target:
            sub.add_argument("target", metavar=target)
        return sub

    which = "UID|NAMESPACE/NAME"
    command("list", "show every simulated microVM of the host", target=None)
    command("lease", "show until when the host may run what needs a lease", target=None)
    kill = command("kill", "end it as a signal would", target=which)
    kill.add_argument("--cause", default="process exited (signal 9)")
    command("pause", "stop its clock", target=which)
    command("resume", "let it go on", target=which)
    vcpu = command("set-vcpu", "give the running one another number of vCPUs", target=which)
    vcpu.add_argument("--vcpu", type=int, required=True)
    command("remove", "make it vanish with everything it had", target=which)
    create = command("create", "make one that no control plane asked for", target="NAME")
    create.add_argument("--vcpu", type=int, default=1)
    create.add_argument("--memory-in-mb", type=int, default=128)
    leave = command("leave", "leave something of a microVM that is gone", target="NAME")
    leave.add_argument("--kind", default="tap", choices=[each.value for each in LeftoverKind])
    leave.add_argument("--microvm", metavar="NAMESPACE/NAME")
    leave.add_argument("--uid")
    leave.add_argument("--epoch", type=int)
    leave.add_argument("--bytes", type=int, default=0)
    leave.add_argument("--unmarked", action="store_true", help="nothing on it says whose it is")
    fail = command("fail", "make a driver call fail", target="UID|*")
    fail.add_argument("--call", required=True, choices=_CALLS)
    fail.add_argument("--code", default="HypervisorFailed")
    fail.add_argument("--message", default="the rehearsed failure")
    fail.add_argument("--pointer", help="the field of the spec that it is about")
    fail.add_argument("--permanent", action="store_true", help="trying again would change nothing")
    fail.add_argument("--times", type=int, help="how often; without it until `heal`")
    command("heal", "clear every rehearsed failure", target=None)
    return parser


def _list(store: Store) -> None:
    now, held = moment(), store.lease()
    for stored in store.all():
        row = lease.under(stored, held, now).row
        who = f"{row.namespace}/{row.name}" if row.namespace else row.name
        ready = "ready" if power.is_ready(row, now.wall_ms) else "not ready"
        sys.stdout.write(
            f"{row.native_id}\t{who}\tepoch {row.epoch}\t{row.power}\t{ready}\t{row.vcpu} vCPU\t{row.cause or ''}\n"
        )


def _lease(store: Store) -> None:
    now, held = moment(), store.lease()
    if held is None or held.boot_id != now.boot_id:
        sys.stdout.write("no lease since the host was started\n")
        return
    left_s = held.ends_s - now.boottime_s
    state = f"live for {left_s:.1f} s" if left_s > 0 else f"ended {-left_s:.1f} s ago"
    sys.stdout.write(f"{state}, grace {held.grace_s:g} s\n")


def _create(store: Store, name: str, *, vcpu: int, memory_in_mb: int) -> None:
    row = Row(
        native_id=f"unmanaged-{name}",
        uid=None,
        cluster_id=None,
        namespace=None,
        name=name,
        epoch=None,
        generation=None,
        power=ObservedPower.STOPPED,
        vcpu=vcpu,
        memory_in_mb=memory_in_mb,
    )
    _apply(store, power.boot(row, now_ms=time.time_ns() // 1_000_000, boot_ms=0))


def _apply(store: Store, step: power.Step) -> None:
    store.put(step.row)
    store.print(step.row.native_id, step.lines, now_ms=time.time_ns() // 1_000_000)


def _tamper(store: Store, options: argparse.Namespace) -> None:
    """Change one existing microVM. Raises DriverError(`NotFound`)."""
    target = str(options.target)
    stored = store.find(target)
    row = lease.under(stored, store.lease(), moment()).row if stored is not None else None
    if row is None:
        have = ", ".join(f"{row.namespace}/{row.name}" if row.namespace else row.native_id for row in store.all())
        raise DriverError("NotFound", f"no simulated microVM {target} here (there are: {have or 'none'})")
    command = str(options.command)
    if row.power not in _POSSIBLE_IN.get(command, set(ObservedPower)):
        raise DriverError("Refused", f"{target} is {row.power}: cannot {command} it")
    now_ms = time.time_ns() // 1_000_000
    match command:
        case "kill":
            _apply(store, power.halt(row, str(options.cause), now_ms=now_ms))
        case "pause":
            _apply(store, power.pause(row, now_ms=now_ms))
        case "resume":
            _apply(store, power.resume(row, now_ms=now_ms))
        case "set-vcpu":
            store.put(replace(row, vcpu=int(options.vcpu)))
        case _:
            store.delete(row.native_id)


def _run(store: Store, options: argparse.Namespace) -> None:
    match str(options.command):
        case "list":
            _list(store)
        case "lease":
            _lease(store)
        case "create":
            _create(store, str(options.target), vcpu=int(options.vcpu), memory_in_mb=int(options.memory_in_mb))
        case "fail":
            store.set_fault(
                Fault(
                    call=str(options.call),
                    target=str(options.target),
                    code=str(options.code),
                    message=str(options.message),
                    pointer=options.pointer,
                    retryable=not options.permanent,
                    times=options.times,
                )
            )
        case "leave":
            store.leave(
                Remains(
                    driver=DRIVER,
                    kind=LeftoverKind(options.kind),
                    name=str(options.target),
                    uid=options.uid,
                    microvm=options.microvm,
                    epoch=options.epoch,
                    bytes=int(options.bytes),
                    marked=not options.unmarked,
                )
            )
        case "heal":
            store.clear_faults()
        case _:
            _tamper(store, options)


def main() -> int:
    options = _parser().parse_args()
    state_dir = Path(options.state_dir)
    if not (state_dir / FILE_NAME).is_file():
        sys.stderr.write(f"{state_dir} holds no simulated microVMs (no {FILE_NAME})\n")
        return 2
    try:
        store = Store(state_dir)
        try:
            with store.transaction():
                _run(store, options)
        finally:
            store.close()
    except DriverError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
