"""An asyncio event loop in virtual time that holds many simulated processes, on machines with clocks of their own.

Nothing waits: when no callback is ready, the time of the next timer is now. A simulated process is what runs in a
context that names it, and asyncio hands contexts on from whoever schedules a callback to the callback itself. So the
loop knows of each callback whose it is: it reads that process's clock, holds back what a stopped process would do, and
drops what a killed one would have done, as the kernel does to real ones: no `finally` runs.

The order of everything follows from the seed: callbacks in the order in which they were made, timers by time and then
by that order, and tasks and futures hash by number, so that no set of them is ordered by addresses.

A virtual hour is more than a million callbacks, so what each of them costs here is much of what a seed takes: handles
are plain (asyncio's ask the loop whether it debugs, thrice each) and made in C, nothing selects, and what is run is not
gathered into rounds first. So a timer is looked at once nothing is ready any more.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from simulation.raft.invariants import Violation

CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
_EPOCH_MS = 1_790_000_000_000
MAX_TURNS = 200_000
"""Callbacks at one moment, after which something is busy with nothing."""
_SWEPT_TASKS = 64
_serials = itertools.count(1)


class Machine:
    """A computer: its clocks, and its source of chance. Implements `ports.Clock`."""

    def __init__(self, loop: VirtualLoop, name: str, seed: int, *, rate: float = 1.0) -> None:
        self.loop = loop
        self.name = name
        self.chance = random.Random(f"{seed} {name}")
        self.rate = rate
        """Seconds of its clocks in a true second."""
        self.wall_s = 0.0
        """How far its wall clock is ahead of the truth."""
        self.booted_s = loop.now_s - 100.0
        """When its monotonic clocks began, in true time."""
        self.boots = 1

    def boot(self) -> None:
        """Its monotonic clocks begin anew."""
        self.booted_s = self.loop.now_s
        self.boots += 1

    def local_s(self, true_s: float) -> float:
        return (true_s - self.booted_s) * self.rate

    def true_s(self, local_s: float) -> float:
        """The first time at which these clocks show `local_s`: a timer that came a rounding error early would be set
        again at once, for ever."""
        booted_s, rate = self.booted_s, self.rate
        true_s = booted_s + local_s / rate
        while (true_s - booted_s) * rate < local_s:
            true_s = math.nextafter(true_s, math.inf)
        return true_s

    def now_ms(self) -> int:
        process = CURRENT.get()
        spent_s = process.spent_s if process is not None else 0.0
        return _EPOCH_MS + int((self.loop.now_s + spent_s + self.wall_s) * 1000)

    def monotonic_s(self) -> float:
        process = CURRENT.get()
        if process is None:
            return (self.loop.now_s - self.booted_s) * self.rate
        return (self.loop.now_s + process.spent_s - self.booted_s) * self.rate

    boottime_s = monotonic_s


class Process:
    """One life of a process on a machine."""

    def __init__(self, loop: VirtualLoop, machine: Machine, name: str) -> None:
        self.loop = loop
        self.machine = machine
        self.name = name
        self.alive = True
        self.gate = False
        """Whether its callbacks are held back, or dropped."""
        self.spent_s = 0.0
        """True seconds that the present callback has taken so far: a slow disk makes what comes after it later."""
        self.ended: list[Callable[[], None]] = []
        """Called when it ends, however it does: what the kernel does for its sockets and locks."""
        self._stops = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._sweep_at = _SWEPT_TASKS
        self._held: list[_Handle] = []
        self._remains: list[_Handle] = []
        self._context = contextvars.copy_context()
        self._context.run(CURRENT.set, self)
        loop.processes.append(self)

    def context(self) -> contextvars.Context:
        return self._context.copy()

    def post(self, what: Callable[..., object], *arguments: object) -> None:
        """Something arrives at the process now."""
        self.loop.call_soon(what, *arguments, context=self.context())

    def post_after(self, true_s: float, what: Callable[..., object], *arguments: object) -> None:
        self.loop.post_at(self.loop.now_s + true_s, self.context(), what, *arguments)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self.context().run(self.loop.create_task, work)

    # -- signals -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """SIGSTOP; as many times `go_on` lets it run again."""
        self._stops += 1
        self.gate = True

    def go_on(self) -> None:
        """SIGCONT: what came meanwhile is there at once."""
        self._stops -= 1
        if self.alive and not self._stops:
            self.gate = False
            held, self._held = self._held, []
            self.loop.resume(held)

    @property
    def stopped(self) -> bool:
        return self._stops > 0

    def kill(self) -> None:
        """SIGKILL. What is left of it in memory stays there, so that nothing of it runs while it is collected."""
        if not self.alive:
            return
        self.alive = False
        self.gate = True
        self._remains += self._held
        self._held = []
        for each in self.ended:
            each()

    def hold(self, handle: _Handle) -> None:
        (self._held if self.alive else self._remains).append(handle)

    # -- what it does --------------------------------------------------------------------------------------------------

    def keep(self, task: asyncio.Task[Any]) -> None:
        """As long as a task is referred to, nothing of it is collected, which would run its `finally`."""
        self._tasks.append(task)
        if len(self._tasks) > self._sweep_at:
            self.sweep()

    def sweep(self) -> None:
        """Let go of what is done; an error that nobody asked for is heard of then."""
        self._tasks = [each for each in self._tasks if not each.done()]
        self._sweep_at = 2 * len(self._tasks) + _SWEPT_TASKS


class _Handle(msgspec.Struct, eq=False):
    """A callback that is due, as `asyncio.Handle` and `asyncio.TimerHandle` are for their users."""

    callback: Any
    """None: cancelled."""
    arguments: Any
    context: contextvars.Context
    due: float = 0.0

    def cancel(self) -> None:
        """It is dropped when its time comes."""
        self.callback = self.arguments = None

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.due


class _Task(asyncio.Task[Any]):
    __slots__ = ("serial",)
    serial: int

    def __hash__(self) -> int:
        return self.serial


class _Future(asyncio.Future[Any]):
    __slots__ = ("serial",)
    serial: int

    def __hash__(self) -> int:
        return self.serial


class VirtualLoop(asyncio.BaseEventLoop):
    """`now_s` is the true time; `time()` is that of whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.steps = 0
        self.processes: list[Process] = []
        """All that ever were."""
        self.unhandled: list[str] = []
        """What callbacks raised, which no product code should let happen."""
        self._heap: list[tuple[float, int, _Handle]] = []
        self._pushed = itertools.count()
        self._queue: deque[_Handle] = deque()

    def time(self) -> float:
        process = CURRENT.get()
        if process is None:
            return self.now_s
        machine = process.machine
        return (self.now_s + process.spent_s - machine.booted_s) * machine.rate

    # -- what asyncio asks of a loop -----------------------------------------------------------------------------------

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context)
        self._queue.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(CURRENT)
        handle = _Handle(callback, args, context, when)
        true_s, now_s = when if process is None else process.machine.true_s(when), self.now_s
        heapq.heappush(self._heap, (true_s if true_s > now_s else now_s, next(self._pushed), handle))  # noqa: FURB136
        return handle

    def post_at(self, true_s: float, context: contextvars.Context, callback: Any, *args: Any) -> None:
        now_s = self.now_s
        entry = _Handle(callback, args, context, true_s)
        heapq.heappush(self._heap, (true_s if true_s > now_s else now_s, next(self._pushed), entry))  # noqa: FURB136

    def create_future(self) -> asyncio.Future[Any]:
        future = _Future(loop=self)
        future.serial = next(_serials)
        return future

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        task = _Task.__new__(_Task)
        task.serial = next(_serials)
        task.__init__(coro, loop=self, name=name, context=context)
        process = CURRENT.get()
        if process is not None:
            process.keep(task)
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """What a thread does comes true at one moment, a little later, unless the process is gone by then."""
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        process = CURRENT.get()
        chance = process.machine.chance if process is not None else random
        self.call_later(0.0002 * 10 ** chance.random(), work)
        return future

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or isinstance(error, Exception):
            process = CURRENT.get()
            where = process.name if process is not None else "world"
            self.unhandled.append(f"{where}: {context.get('message')}: {error!r}")

    get_debug = staticmethod(bool)
    """It never does; every future and task asks, and `bool` answers in C."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nothing waits."""

    # -- running -------------------------------------------------------------------------------------------------------

    def resume(self, held: list[_Handle]) -> None:
        """What a stopped process was held back from comes before what is ready by now."""
        self._queue.extendleft(reversed(held))

    def run_forever(self) -> None:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)  # pyright: ignore[reportAttributeAccessIssue]
        asyncio.events._set_running_loop(self)
        try:
            self._run_until_stopped()
        finally:
            self._stopping = False
            asyncio.events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        for process in self.processes:
            process.sweep()

    def _run_until_stopped(self) -> None:
        heap, queue, turns = self._heap, self._queue, 0
        while not self._stopping:  # pyright: ignore[reportAttributeAccessIssue]
            if queue:
                handle = queue.popleft()
            else:
                at_s, _, handle = heapq.heappop(heap)
                if handle.callback is not None and at_s > self.now_s:
                    self.now_s = at_s
                    turns = 0
            callback, context = handle.callback, handle.context
            if callback is None:
                continue
            process = context.get(CURRENT)
            turns += 1
            if turns > MAX_TURNS:
                who = process.name if process is not None else "the world"
                raise Violation("busy", f"{MAX_TURNS} callbacks at {self.now_s:.3f} s, the last of them of {who}")
            if process is not None:
                if process.gate:
                    process.hold(handle)
                    continue
                self.steps += 1
            try:
                context.run(callback, *handle.arguments)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"Exception in callback {callback}", "exception": error})
            if process is not None and process.spent_s:
                self._busy(process)

    def _busy(self, process: Process) -> None:
        """It does nothing else until the time that it spent has passed."""
        spent_s, process.spent_s = process.spent_s, 0.0
        process.stop()
        self.post_at(self.now_s + spent_s, contextvars.Context(), process.go_on)
