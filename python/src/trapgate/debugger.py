"""The debugger of a guest: how it attaches and detaches, runs the guest and waits for it."""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from trapgate import errors
from trapgate.breakpoint import Breakpoint
from trapgate.connection import Connection
from trapgate.debug.v1 import breakpoints_pb2, messages_pb2, nothing_pb2, run_pb2
from trapgate.has_memory import HasMemory
from trapgate.memory import Memory
from trapgate.session import Session
from trapgate.stop import Stop, StopKind
from trapgate.symbols import SourceLine, Symbols
from trapgate.vp import Vp


class IfLost(enum.Enum):
    """What happens to the guest when the program ends without `detach`. A guest that is held before its first instruction, and that the program has not run, stays held."""

    RESUME = run_pb2.DETACH_ACTION_RESUME
    STAY = run_pb2.DETACH_ACTION_STAY
    KILL = run_pb2.DETACH_ACTION_KILL

    def __repr__(self) -> str:
        return f"IfLost.{self.name}"


def connect(address: str, *, if_lost: IfLost = IfLost.RESUME, request_limit: float = 10.0) -> Debugger:
    """Attaches to the guest of a VMM, and stops the guest. The address is that behind the VMM's `--rpc`: `unix:PATH`.

    `request_limit` is the time limit of each request in seconds. A run of the guest has a limit of its own.
    """
    path = address.removeprefix("unix:")
    if path == address or not path:
        raise errors.BadAddress(address)
    connection = Connection(path, request_limit)
    try:
        attach = messages_pb2.Request(attach=if_lost.value)
        attached = connection.call("attach", attach, "attached").attached
        return Debugger(Session(connection, attached.session), attached.info)
    except BaseException:
        connection.close()
        raise


class Debugger(HasMemory):
    """The debugger of a guest. While a program has it, no other debugger can attach. `connect` makes it.

    As a context manager it detaches at the end of the block: breakpoints are removed, and the guest runs on. When the program dies, the same happens,
    unless `if_lost` says something else.

    A `timeout` is in seconds. `None` waits forever.
    """

    def __init__(self, session: Session, info: run_pb2.AttachInfo) -> None:
        """For `connect`."""
        self._session = session
        self._last = self._stop("attach", info.stop)
        # The number of the request whose answer is the next stop.
        self._run: int | None = None
        #: The properties of the guest, and the features that work on the VMM's host.
        self.info = info

    # The end of the session.

    def detach(self) -> None:
        """Ends the session and lets the guest run. Afterwards nothing of this program is left in the guest."""
        self._end(run_pb2.DETACH_ACTION_RESUME)

    def detach_stopped(self) -> None:
        """Ends the session, and leaves the guest stopped until the next debugger attaches."""
        self._end(run_pb2.DETACH_ACTION_STAY)

    def kill(self) -> None:
        """Ends the guest."""
        self._end(run_pb2.DETACH_ACTION_KILL)

    def _end(self, action: run_pb2.DetachAction.ValueType) -> None:
        try:
            self._session.call("detach", messages_pb2.Request(detach=action), "done")
        finally:
            self._session.attached = False
            self._session.connection.close()

    def __enter__(self) -> Debugger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self._session.attached:
            # Nobody can be detached from a guest or a VMM that is gone, and an error of the block says more than one of the detach.
            hidden = (errors.Error,) if kind else (errors.Gone, errors.GuestEnded)
            with contextlib.suppress(*hidden):
                self.detach()
        return False

    # VPs.

    def vp(self, index: int) -> Vp:
        """The VP with this index: 0 is the VP that starts first."""
        return Vp(self._session, index)

    @property
    def vps(self) -> list[Vp]:
        """The VPs that the guest had at the last stop."""
        return [self.vp(index) for index in self._last.vps]

    @property
    def current(self) -> Vp:
        """The VP of the last stop, or the first VP if the stop concerned the whole guest."""
        if self._last.vp is not None:
            return self.vp(self._last.vp)
        return self.vp(next(iter(self._last.vps), 0))

    @property
    def last_stop(self) -> Stop:
        """The last stop."""
        return self._last

    @property
    def running(self) -> bool:
        """Whether this program lets the guest run. A stop that nobody has waited for does not change this."""
        return self._run is not None

    # Memory, by the page tables of the current VP.

    def _memory(self) -> Memory:
        return self.current._memory()

    def read_physical(self, address: int, length: int) -> bytes:
        """Bytes at a physical address, also while the guest runs."""
        return Memory(self._session, None).read(address, length)

    def read_physical_into(self, address: int, buffer: bytearray | memoryview) -> None:
        """Fills the buffer from a physical address, without a copy in between. After an exception its contents are not defined."""
        Memory(self._session, None).read_into(address, buffer)

    def write_physical(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Writes bytes at a physical address, also while the guest runs."""
        Memory(self._session, None).write(address, data)

    # Symbols.

    def load_symbols(self, path: str | os.PathLike[str]) -> Symbols:
        """Reads the symbols of the ELF file that the guest executes, so that places have names."""
        self._session.symbols = Symbols.load(path)
        return self._session.symbols

    @property
    def symbols(self) -> Symbols | None:
        """The symbols. They may be set, to be read once for several sessions."""
        return self._session.symbols

    @symbols.setter
    def symbols(self, symbols: Symbols | None) -> None:
        self._session.symbols = symbols

    def line(self, place: int | str) -> SourceLine | None:
        """The source line of an instruction, if the debug information has one."""
        address = self._session.address(place)
        if self._session.symbols is None:
            raise errors.NoSymbols(f"{address:#x}")
        return self._session.symbols.line(address)

    # Breakpoints.

    def break_at(self, place: int | str) -> Breakpoint:
        """Sets a breakpoint at an instruction, for all VPs."""
        return self._break(breakpoints_pb2.BREAKPOINT_KIND_SOFTWARE, place, 1)

    def watch(self, place: int | str, length: int) -> Breakpoint:
        """A VP stops after it has written one of these bytes. x86 watches 1, 2, 4 or 8 bytes at a multiple of the length."""
        return self._break(breakpoints_pb2.BREAKPOINT_KIND_WRITE, place, length)

    def watch_access(self, place: int | str, length: int) -> Breakpoint:
        """As `watch`, for reads and writes."""
        return self._break(breakpoints_pb2.BREAKPOINT_KIND_READ_WRITE, place, length)

    def _break(self, kind: breakpoints_pb2.BreakpointKind.ValueType, place: int | str, length: int) -> Breakpoint:
        return Breakpoint(self._session, kind, self._session.address(place), length)

    # Running and waiting.

    def resume(self) -> None:
        """Lets all VPs run. The method does not wait for a stop."""
        self._begin(run_pb2.ResumeRequest(others=run_pb2.VpAction(run=nothing_pb2.Nothing())))

    def interrupt(self) -> Stop:
        """Stops the guest, and waits until it is stopped. The stop may be another one that came first. If the guest is stopped, this is the last stop."""
        if self._run is None:
            return self._last
        what = "interrupt the guest"
        self._session.call(what, messages_pb2.Request(break_=nothing_pb2.Nothing()), "done")
        # The stop is answered before the interruption.
        limit = self._session.connection.limit
        stop = self._stop_within(limit)
        if stop is None:
            raise errors.NoAnswer(what, limit)
        return stop

    def wait(self, timeout: float | None = 10.0) -> Stop:
        """Waits for the next stop of a guest that `resume` let run, whatever it is.

        `TimedOut`: the guest did not stop in time, was interrupted, and is stopped now. After a `KeyboardInterrupt` the guest runs, and can be waited for again.
        """
        return self._wait("a stop", timeout, lambda _: True)

    def wait_for(self, kind: StopKind, timeout: float | None = 10.0) -> Stop:
        """Waits for a stop of one kind of a guest that `resume` let run. Every other stop is an `OtherStop`."""
        return self._wait(str(kind), timeout, lambda stop: stop.kind is kind)

    def run_until(self, breakpoint: Breakpoint, timeout: float | None = 10.0) -> Stop:
        """Lets all VPs run until one reaches this breakpoint. Every other stop is an `OtherStop`."""
        self.resume()
        return self._wait(breakpoint.wanted, timeout, breakpoint.is_reason)

    def step(self) -> Stop:
        """The current VP executes one instruction, and the other VPs stay where they are."""
        return self.step_n(1)

    def step_n(self, count: int) -> Stop:
        """The current VP executes `count` instructions, and the other VPs stay where they are.

        The VMM has no request for many steps: each is a request of its own. Steps that came before an error are not undone.
        """
        vp = self.current.index
        step = run_pb2.OneVpAction(vp=vp, action=run_pb2.VpAction(step=nothing_pb2.Nothing()))
        stay = run_pb2.VpAction(stay=nothing_pb2.Nothing())
        for _ in range(count):
            self._begin(run_pb2.ResumeRequest(others=stay, actions=[step]))
            self._wait("the end of a step", self._session.connection.limit, lambda stop: stop.kind is StopKind.STEP)
        return self._last

    def _begin(self, request: run_pb2.ResumeRequest) -> None:
        if self._run is not None:
            raise errors.Running
        self._run = self._session.send("run the guest", messages_pb2.Request(resume=request))

    def _wait(self, wanted: str, timeout: float | None, is_wanted: Callable[[Stop], bool]) -> Stop:
        stop = self._stop_within(timeout)
        if stop is None:
            # What was waited for may come just before the interruption.
            stop = self.interrupt()
            if stop.kind is StopKind.INTERRUPT or not is_wanted(stop):
                raise errors.TimedOut(wanted, timeout or 0, stop)
        if not is_wanted(stop):
            raise errors.OtherStop(wanted, stop)
        return stop

    def _stop_within(self, timeout: float | None) -> Stop | None:
        """The stop of the running guest, if it comes in time."""
        if not self._session.attached:
            raise errors.SessionEnded("wait for a stop")
        if self._run is None:
            raise errors.NotRunning
        connection, what = self._session.connection, "run the guest"
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            answer = connection.answer(self._run, deadline)
        except errors.Error:
            # The request has its answer, or will never have one.
            self._run = None
            raise
        if answer is None:
            return None
        self._run = None
        self._last = self._stop(what, connection.of_kind(what, answer, "stop").stop)
        return self._last

    def _stop(self, what: str, event: run_pb2.StopEvent) -> Stop:
        try:
            return Stop.of(event)
        except ValueError as error:
            self._session.connection.unusable(what, str(error))

    def __repr__(self) -> str:
        connection = self._session.connection
        count = len(self._last.vps)
        if not self._session.attached:
            state = "detached"
        elif not connection.open:
            state = "the VMM is gone"
        elif self._run is not None:
            state = "running"
        else:
            state = f"stopped by {self._last}" if self._last.vp is None else f"stopped: {self._last}"
        return f"<Debugger of unix:{connection.path}: {count} VP{'' if count == 1 else 's'}, {state}>"
