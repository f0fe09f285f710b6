"""Breakpoints as values of the program."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from trapgate import errors
from trapgate.condition import Value, printf, value
from trapgate.debug.v1 import breakpoints_pb2
from trapgate.stop import Stop, StopKind

if TYPE_CHECKING:
    from trapgate.session import Key, Session


class Breakpoint:
    """A breakpoint or watchpoint that is set. As a context manager it removes itself at the end of the block.

    Several values may stand for one breakpoint, which is removed with the last of them. A value that the program drops removes nothing. All breakpoints end with the session.
    """

    def __init__(self, session: Session, kind: breakpoints_pb2.BreakpointKind.ValueType, address: int, length: int) -> None:
        """For `Debugger.break_at` and its like."""
        self._session = session
        self._key: Key = (kind, address, length)
        self._value = weakref.ref(self)
        session.insert(self._value, self._key)

    @property
    def address(self) -> int:
        """The address of the instruction, or of the first watched byte."""
        return self._key[1]

    @property
    def length(self) -> int:
        """In bytes. 1 for an instruction."""
        return self._key[2]

    @property
    def is_set(self) -> bool:
        """Whether this value stands for a breakpoint."""
        return self._session.stands(self._value) and self._session.attached

    def is_reason(self, stop: Stop) -> bool:
        """Whether this breakpoint is the reason of a stop."""
        if stop.kind is StopKind.BREAKPOINT:
            found = stop.reason.breakpoint.breakpoint
        elif stop.kind is StopKind.WATCHPOINT:
            found = stop.reason.watchpoint.breakpoint
        else:
            return False
        return (found.kind, found.address, found.len) == self._key

    def stop_if(self, *conditions: Value) -> None:
        """Makes a hit a stop only if one of these conditions holds. Without a condition, each hit is a stop again.

        The VP that hits the breakpoint evaluates the conditions, and goes on if none holds. No stop is reported then. The other VPs run on,
        unless the VP has to execute the instruction under a breakpoint byte: they are held for that one instruction. A condition that cannot be evaluated is a stop with
        `Stop.condition_failure`. The conditions end with the breakpoint, and are those of all values that stand for this breakpoint.
        """
        self._at_hits(conditions, [])

    def print(self, format: str, *values: Value | int, conditions: Iterable[Value] = ()) -> None:
        """Makes a hit print a text if one of the conditions holds, or if there is none. No hit is a stop. `Debugger.printed` returns the text.

        The format is that of C's `printf`, with a value for each conversion: `round.print("CPU %u\\n", register("rdi").load_u32())`. `%s` takes the address of a string in the
        guest; there are no floating-point numbers. A condition or a value that cannot be evaluated prints the reason. The conditions and the text of an earlier call, also of `stop_if`, end.
        """
        self._at_hits(conditions, [printf(format, values)])

    def _at_hits(self, conditions: Iterable[Value], commands: list[bytes]) -> None:
        if not self.is_set:
            raise errors.BadArgument(f"{self!r} has no conditions; set it again")
        code = [breakpoints_pb2.Condition(code=value(condition).code()) for condition in conditions]
        texts = [breakpoints_pb2.Condition(code=command) for command in commands]
        self._session.set_conditions(self._key, code, texts)

    def remove(self) -> None:
        """Removes the breakpoint. Nothing happens if it is removed already, or the session is over."""
        if self.is_set:
            self._session.remove(self._value, self._key)

    def check(self, session: Session) -> None:
        """Refuses a breakpoint of another session, and one that is removed."""
        if self._session is not session:
            raise errors.BadArgument(f"{self!r} is of another debugger; give a breakpoint of this one")
        if not session.is_set(self._key):
            raise errors.BadArgument(f"{self!r} would never be reached; set it again")

    @property
    def wanted(self) -> str:
        """What a program waits for, as text."""
        return f"{'an access to the watched bytes' if self._watches else 'the breakpoint'} at {self.address:#x}"

    @property
    def _watches(self) -> bool:
        return self._key[0] not in (breakpoints_pb2.BREAKPOINT_KIND_SOFTWARE, breakpoints_pb2.BREAKPOINT_KIND_EXECUTE)

    def __enter__(self) -> Breakpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        # A guest or a VMM that is gone has no breakpoints, and an error of the block says more than one of the removal.
        hidden = (errors.Error,) if kind else (errors.Gone, errors.GuestEnded)
        with contextlib.suppress(*hidden):
            self.remove()
        return False

    def __repr__(self) -> str:
        hardware = self._key[0] == breakpoints_pb2.BREAKPOINT_KIND_EXECUTE
        what = f"{self.length} watched bytes" if self._watches else f"{'hardware ' if hardware else ''}breakpoint"
        name = self._session.name_of(self.address)
        return f"<Breakpoint: {what} at {self.address:#x}{name}{'' if self.is_set else ', removed'}>"
