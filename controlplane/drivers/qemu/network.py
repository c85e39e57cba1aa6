"""Interfaces: one persistent tap per interface, attached to a bridge when the spec names one.

Names and hardware addresses are computed from the instance, the uid and the interface's id. So they are the same after
every restart, and every tap of a microVM can be found by its name alone, whatever was or was not written down. Whose a
tap is that nothing else tells of, its alias says (`ip link`), which is its mark.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.drivers.common import unsupported
from controlplane.drivers.qemu.command import Nic
from controlplane.drivers.qemu.tag import Tag, is_part, mark_of, parse_mark
from controlplane.model.spec import Interface, InterfaceType, MicroVMSpec
from controlplane.ports import DriverError

_DEVICES = Path("/sys/class/net")
_TIMEOUT_S = 10.0
_NAME_PREFIX = "fl"


def tap_prefix(instance: str, uid: str) -> str:
    """10 characters that all taps of one microVM begin with."""
    return f"{_NAME_PREFIX}{hashlib.sha256(f'{instance}/{uid}'.encode()).hexdigest()[:8]}"


def tap_name(instance: str, uid: str, device: str) -> str:
    """14 characters; Linux allows 15."""
    return f"{tap_prefix(instance, uid)}{hashlib.sha256(device.encode()).hexdigest()[:4]}"


def mac_address(uid: str, device: str, interface: Interface) -> str:
    """The declared address, else a locally administered one that depends on the uid and the interface's id."""
    if interface.guest_mac is not None:
        return interface.guest_mac.lower()
    digest = hashlib.sha256(f"{uid}/{device}".encode()).hexdigest()
    return ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])


def nics(instance: str, uid: str, interfaces: Mapping[str, Interface]) -> Sequence[Nic]:
    """In the order of their ids, which is the order of the guest's devices."""
    return [
        Nic(device, tap_name(instance, uid, device), mac_address(uid, device, interfaces[device]))
        for device in sorted(interfaces)
    ]


def check(spec: MicroVMSpec) -> None:
    """Raises DriverError: `Unsupported`, `BridgeNotFound` or `NetworkPermission`."""
    for device, interface in spec.interfaces.items():
        pointer = f"/spec/interfaces/{device}"
        if interface.type is InterfaceType.MACVTAP:
            raise unsupported("the qemu driver has no macvtap interfaces; use type tap", pointer=f"{pointer}/type")
        if interface.bridge_name is not None and not (_DEVICES / interface.bridge_name / "bridge").is_dir():
            raise DriverError(
                "BridgeNotFound",
                f"this host has no bridge {interface.bridge_name} (it has: {', '.join(_bridges()) or 'none'})",
                pointer=f"{pointer}/bridge_name",
            )
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise DriverError(
                "NetworkPermission",
                "cannot use /dev/net/tun: the module tun and CAP_NET_ADMIN are needed",
                pointer=pointer,
            )


@dataclass(frozen=True, slots=True)
class Tap:
    """One whose alias says whose it is."""

    name: str
    cluster_id: str
    uid: str
    epoch: int


async def make(tag: Tag, interfaces: Mapping[str, Interface]) -> None:
    """Make the taps of a microVM as declared, with its mark, and remove its other ones."""
    instance, uid = tag.instance, tag.uid
    wanted = {tap_name(instance, uid, device): device for device in interfaces}
    await _remove(name for name in existing(instance, uid) if name not in wanted)
    for name, device in wanted.items():
        pointer = f"/spec/interfaces/{device}"
        if not (_DEVICES / name).exists():
            await _ip("tuntap", "add", "dev", name, "mode", "tap", pointer=pointer)
        bridge = interfaces[device].bridge_name
        master = ("master", bridge) if bridge else ("nomaster",)
        await _ip("link", "set", "dev", name, "alias", mark_of(tag), *master, "up", pointer=pointer)


async def remove(instance: str, uid: str) -> None:
    """Remove every tap of a microVM, and see that they are gone."""
    await _remove(existing(instance, uid))
    left = existing(instance, uid)
    if left:
        raise DriverError("NetworkFailed", f"taps are still there: {', '.join(left)}")


def existing(instance: str, uid: str) -> list[str]:
    """Names of the taps that a microVM has on the host."""
    prefix = tap_prefix(instance, uid)
    return sorted(entry.name for entry in _DEVICES.iterdir() if entry.name.startswith(prefix))


def marked(instance: str) -> list[Tap]:
    """Every tap whose mark is of `instance`, in order of names. Those of before there were marks are not among them."""
    taps: list[Tap] = []
    for path in sorted(_DEVICES.glob(f"{_NAME_PREFIX}*")):
        try:
            tag = parse_mark((path / "ifalias").read_text(encoding="utf-8", errors="replace").strip())
        except OSError:  # it went away
            continue
        ours = tag is not None and tag.instance == instance and is_part(tag.uid)
        if tag is not None and ours and path.name.startswith(tap_prefix(instance, tag.uid)):
            taps.append(Tap(path.name, tag.cluster_id, tag.uid, tag.epoch))
    return taps


async def remove_tap(name: str) -> None:
    """Absent is success. Raises DriverError."""
    if (_DEVICES / name).exists():
        await _remove([name])


def _bridges() -> list[str]:
    return sorted(entry.name for entry in _DEVICES.iterdir() if (entry / "bridge").is_dir())


async def _remove(names: Iterable[str]) -> None:
    for name in names:
        try:
            await _ip("tuntap", "del", "dev", name, "mode", "tap")
        except DriverError:
            if (_DEVICES / name).exists():
                raise


async def _ip(*arguments: str, pointer: str | None = None) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "ip",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise DriverError(
            "NetworkFailed", "no `ip` program; install it: apt-get install iproute2", pointer=pointer
        ) from error
    try:
        _, output = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except TimeoutError as error:
        raise DriverError(
            "NetworkFailed", f"`ip {' '.join(arguments)}` took over {_TIMEOUT_S} s", pointer=pointer
        ) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return
    message = output.decode(errors="replace").strip()
    denied = "not permitted" in message or "ermission denied" in message
    raise DriverError(
        "NetworkPermission" if denied else "NetworkFailed",
        f"`ip {' '.join(arguments)}` failed: {message}" + (" (CAP_NET_ADMIN is needed)" if denied else ""),
        pointer=pointer,
    )
