"""The debugger of a guest: how it attaches and detaches, runs the guest and waits for it."""

from __future__ import annotations

import contextlib
import enum
import os
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Literal

from trapgate import ends, errors
from trapgate.arguments import checked_count, checked_seconds
from trapgate.breakpoint import Breakpoint
from trapgate.connection import Connection
from trapgate.debug.v1 import breakpoints_pb2, messages_pb2, run_pb2
from trapgate.has_memory import HasMemory
from trapgate.memory import Memory
from trapgate.output import Output
from trapgate.run import Run
from trapgate.session import Session
from trapgate.stop import EVENTS, Stop, StopKind
from trapgate.symbols import SourceLine, Symbols
from trapgate.vp import Vp


class IfLost(enum.Enum):
    """What happens to the guest at the end of a `with` block, and when the program ends without `detach`. A guest that is held before its first instruction, and that the program has not run, stays held."""

    RESUME = run_pb2.DETACH_ACTION_RESUME
    STAY = run_pb2.DETACH_ACTION_STAY
    KILL = run_pb2.DETACH_ACTION_KILL

    def __repr__(self) -> str:
        return f"IfLost.{self.name}"


#: What a detach does that does the same.
_AT_THE_END = {
    IfLost.RESUME: run_pb2.DETACH_ACTION_RESUME_UNLESS_HELD,
    IfLost.STAY: run_pb2.DETACH_ACTION_STAY,
    IfLost.KILL: run_pb2.DETACH_ACTION_KILL_UNLESS_HELD,
}


def connect(address: str, *, if_lost: IfLost = IfLost.RESUME, request_limit: float = 10.0) -> Debugger:
    """Attaches to the guest of a VMM, and stops the guest. The address is that behind the VMM's `--rpc`: `unix:PATH`.

    `request_limit` is the time limit of each request in seconds. A run of the guest has a limit of its own.
    """
    path = address.removeprefix("unix:") if isinstance(address, str) else ""
    if path == address or not path:
        raise errors.BadAddress(address)
    if not isinstance(if_lost, IfLost):
        raise errors.BadArgument(f"if_lost is {if_lost!r}; give a member of IfLost")
    checked_seconds("request_limit", request_limit)
    connection = Connection(path, request_limit)
    try:
        attach = messages_pb2.Request(attach=if_lost.value)
        attached = connection.call("attach", attach, "attached").attached
        return Debugger(Session(connection, attached.session), attached.info, if_lost)
    except BaseException:
        connection.close()
        raise


class Debugger(HasMemory):
    """The debugger of a guest. While a program has it, no other debugger can attach. `connect` makes it.

    As a context manager it ends the session at the end of the block, whether or not the block has raised an exception: breakpoints are removed, and the guest runs on, unless
    `if_lost` says something else. When the program dies, or has no reference to the debugger any more, the same happens.

    A `timeout` is in seconds. `None` waits forever.
    """

    def __init__(self, session: Session, info: run_pb2.AttachInfo, if_lost: IfLost) -> None:
        """For `connect`."""
        self._session = session
        self._if_lost = if_lost
        self._run = Run(session, info.stop)
        self._output = Output(session, self._run)
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

    def close(self) -> None:
        """Ends the session as `if_lost` says. Nothing happens if it is over."""
        if self._session.attached:
            self._end(_AT_THE_END[self._if_lost])

    def __del__(self) -> None:
        session: Session | None = getattr(self, "_session", None)
        if session is not None and session.attached and session.connection.open:
            warnings.warn(f"not closed: {self!r}; use `with`, or call detach or close", ResourceWarning, source=self)
            session.connection.close()

    def __enter__(self) -> Debugger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        # Nobody can be detached from a guest or a VMM that is gone, and an error of the block says more than one of the detach.
        hidden = (errors.Error,) if kind else (errors.Gone, errors.GuestEnded)
        with contextlib.suppress(*hidden):
            self.close()
        return False

    # VPs.

    def vp(self, index: int) -> Vp:
        """The VP with this index: 0 is the VP that starts first."""
        return Vp(self._session, index, self)

    @property
    def vps(self) -> list[Vp]:
        """The VPs that the guest had at the last stop."""
        return [self.vp(index) for index in self._run.last.vps]

    @property
    def current(self) -> Vp:
        """The VP of the last stop. After a stop that concerned the whole guest, such as an interruption, the VP of the stop before, while the guest has this VP; or else the first VP."""
        return self.vp(self._run.current)

    @property
    def last_stop(self) -> Stop:
        """The last stop."""
        return self._run.last

    @property
    def running(self) -> bool:
        """Whether this program lets the guest run. A stop that nobody has waited for does not change this."""
        return self._run.is_running

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

    def address(self, place: int | str) -> int:
        """The address of a place, such as `"counter"`, for a condition or for arithmetic."""
        return self._session.address(place)

    def break_at(self, place: int | str) -> Breakpoint:
        """Sets a breakpoint at an instruction, for all VPs."""
        return self._break(breakpoints_pb2.BREAKPOINT_KIND_SOFTWARE, place, 1)

    def hbreak_at(self, place: int | str) -> Breakpoint:
        """As `break_at`, with a debug register of each VP, of which x86 has four. The guest's memory is not changed."""
        return self._break(breakpoints_pb2.BREAKPOINT_KIND_EXECUTE, place, 1)

    def watch(self, place: int | str, length: int) -> Breakpoint:
        """A VP stops after it has written one of these bytes. x86 watches 1, 2, 4 or 8 bytes at a multiple of the length."""
        return self._break(breakpoints_pb2.BREAKPOINT_KIND_WRITE, place, length)

    def watch_access(self, place: int | str, length: int) -> Breakpoint:
        """As `watch`, for reads and writes."""
        return self._break(breakpoints_pb2.BREAKPOINT_KIND_READ_WRITE, place, length)

    def _break(self, kind: breakpoints_pb2.BreakpointKind.ValueType, place: int | str, length: int) -> Breakpoint:
        checked_count("length", length)
        return Breakpoint(self._session, kind, self._session.address(place), length)

    # Running and waiting.

    def resume(self) -> None:
        """Lets all VPs run. The method does not wait for a stop."""
        self._run.resume()

    def interrupt(self) -> Stop:
        """Stops the guest, and waits until it is stopped. The stop may be another one that came first. If the guest is stopped, this is the last stop."""
        return self._run.interrupt()

    def wait(self, timeout: float | None = 10.0) -> Stop:
        """Waits for the next stop of a guest that `resume` let run, whatever it is.

        `TimedOut`: the guest did not stop in time, was interrupted, and is stopped now. After a `KeyboardInterrupt` the guest runs, and can be waited for again.
        """
        checked_seconds("timeout", timeout)
        return self._run.wait("a stop", timeout, lambda _: True)

    def wait_for(self, kind: StopKind, timeout: float | None = 10.0) -> Stop:
        """Waits for a stop of one kind of a guest that `resume` let run. Every other stop is an `OtherStop`."""
        checked_seconds("timeout", timeout)
        if not isinstance(kind, StopKind):
            raise errors.BadArgument(f"the kind of the stop is {kind!r}; give a member of StopKind")
        return self._run.wait(str(kind), timeout, lambda stop: stop.kind is kind)

    def run_until(self, breakpoint: Breakpoint, timeout: float | None = 10.0) -> Stop:
        """Lets all VPs run until one reaches this breakpoint. Every other stop is an `OtherStop`.

        After a `KeyboardInterrupt` the guest may run (`running`), and then its stop can be waited for.
        """
        checked_seconds("timeout", timeout)
        if not isinstance(breakpoint, Breakpoint):
            raise errors.BadArgument(f"the breakpoint is {breakpoint!r}; give one that break_at or watch has returned")
        breakpoint.check(self._session)
        self._run.resume()
        return self._run.wait(breakpoint.wanted, timeout, breakpoint.is_reason)

    def printed(self, timeout: float | None = 10.0) -> str:
        """What `Breakpoint.print` has printed since the last call. If nothing is there and the guest runs, the method waits for text, or for the next stop, or until the time is over.

        A stop comes behind all text before it. The VMM keeps 64 KiB; if the program does not fetch more than that in time, a line in the text says how many bytes are lost.
        """
        checked_seconds("timeout", timeout)
        return self._output.fetch(timeout)

    def step(self) -> Stop:
        """The current VP executes one instruction, and the other VPs stay where they are."""
        return self.step_n(1)

    def step_n(self, count: int) -> Stop:
        """The current VP executes `count` instructions by one request, and the other VPs stay where they are. `Stop.steps` is the number of instructions that it has executed.

        A breakpoint at which the VP has stopped is passed. Another one ends the steps: an `OtherStop`. The `request_limit` of `connect` is the limit of all these steps together:
        a `TimedOut`. Steps that came before an error are not undone. A VMM of an older version that has no such request refuses more than one step.
        """
        checked_count("count", count)
        if count == 0:
            return self._run.last
        return self._run.step(self.current.index, count)

    def stop_on(self, events: StopKind | Iterable[StopKind]) -> frozenset[StopKind]:
        """Sets which events of the guest are stops: a set of `StopKind.RESET`, `POWER_OFF`, `TRIPLE_FAULT` and `PANIC`. The VMM acts upon the others at once, as without a debugger.

        The set holds until the session ends, and is returned. A session begins with all of them but `PANIC`, because kernels handle a panic themselves. `NoStopOn`: the VMM does not tell its
        debug server of an event.
        """
        try:
            wanted = (events,) if isinstance(events, StopKind) else tuple(events)
        except TypeError as error:
            raise errors.BadArgument(f"{events!r} is no set of events; give a set of members of StopKind") from error
        for event in wanted:
            if event not in EVENTS:
                raise errors.BadArgument(f"{event!r} is no event that can be chosen; choose from {', '.join(map(repr, EVENTS))}")
        bits = sum(1 << index for index, event in enumerate(EVENTS) if event in wanted)
        request = messages_pb2.Request(stop_on=run_pb2.NewStopOn(value=bits))
        answer = self._session.call("choose the events that are stops", request, "stop_on").stop_on
        set_ = frozenset(event for index, event in enumerate(EVENTS) if answer >> index & 1)
        for event in wanted:
            if event not in set_:
                raise errors.NoStopOn(event)
        return set_

    def __repr__(self) -> str:
        connection = self._session.connection
        last = self._run.last
        count = len(last.vps)
        if not self._session.attached:
            state = "detached"
        elif connection.end_of_guest is not None:
            state = f"the guest has ended: {ends.text(connection.end_of_guest.ended.how)}"
        elif not connection.open:
            state = "the VMM is gone"
        elif self._run.is_running:
            state = "running"
        else:
            state = f"stopped by {last}" if last.vp is None else f"stopped: {last}"
        return f"<Debugger of unix:{connection.path}: {count} VP{'' if count == 1 else 's'}, {state}>"
