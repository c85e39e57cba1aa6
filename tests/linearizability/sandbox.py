"""A place for destructive tests that the kernel itself cleans up: private mounts, processes and network.

`run_inside` forks into new mount, pid and network namespaces. Everything a run makes (bridges, namespaces of nodes,
tmpfs, processes, stopped ones too) lives in them and is gone when the first process in there ends, however it ends,
and that one dies with the command that was started. Nothing outside can be hit, and nothing can be left behind.
"""

# ruff: noqa: T201 - says why it cannot run
from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_TOOLS = {"ip": "iproute2", "nft": "nftables", "tc": "iproute2", "nsenter": "util-linux", "mount": "mount"}
EX_UNAVAILABLE = 69

_libc = ctypes.CDLL(None, use_errno=True)


def what_is_missing() -> list[str]:
    """Why `run_inside` cannot work on this machine, for a person."""
    reasons = [f"{tool} is missing (apt-get install {package})" for tool, package in _TOOLS.items() if not _has(tool)]
    if os.geteuid() != 0:
        reasons.append("network namespaces need root")
    return reasons


def _has(tool: str) -> bool:
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def run_inside(main: Callable[[], int]) -> int:
    """Run `main` in the sandbox and give its exit code; EX_UNAVAILABLE, and why, when there can be none.

    Call it before any thread or event loop exists. SIGTERM and SIGINT are passed on as SIGINT.
    """
    missing = what_is_missing()
    if not missing and _libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET) != 0:
        missing = [f"namespaces are not permitted here: {os.strerror(ctypes.get_errno())}"]
    if missing:
        print("this cannot run here:", *missing, sep="\n  ", file=sys.stderr)
        return EX_UNAVAILABLE
    first = os.fork()
    if first == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os._exit(_reap(main))
    return _await(first)


def _reap(main: Callable[[], int]) -> int:
    """The first process of the sandbox: takes in orphans, and ends with the one that does the work."""
    worker = os.fork()
    if worker == 0:
        os._exit(_work(main))
    return _await(worker, children=True)


def _await(pid: int, *, children: bool = False) -> int:
    def pass_on(_number: int, _frame: object) -> None:
        os.kill(pid, signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    while True:
        ended, status = os.waitpid(-1 if children else pid, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _work(main: Callable[[], int]) -> int:
    # A terminal's Ctrl-C reaches the whole group; the parents pass it on once.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command("mount", "--make-rprivate", "/")
        command("mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "raft-check", "/run")
        command("mount", "-t", "proc", "proc", "/proc")
        Path("/run/netns").mkdir()
        command("ip", "link", "set", "lo", "up")
        code = main()
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = os.EX_SOFTWARE
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def command(*argv: str, given: str | None = None) -> None:
    """Run a tool. Raises RuntimeError with what it said."""
    result = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {result.stderr.strip() or result.returncode}")


def bind(directory: Path, name: str) -> Path:
    """A short path for `directory` (paths of unix sockets have at most 107 characters)."""
    short = Path("/run") / name
    short.mkdir()
    command("mount", "--bind", str(directory), str(short))
    return short


def unbind(short: Path) -> None:
    command("umount", "--lazy", str(short))
    short.rmdir()


def tmpfs(directory: Path, size_bytes: int) -> None:
    """A small disk of its own at `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    command("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "raft-check", str(directory))


def in_network(node: str, argv: Sequence[str]) -> list[str]:
    """`argv` as started in the network namespace of `node`."""
    return ["nsenter", f"--net=/run/netns/{node}", "--", *argv]
