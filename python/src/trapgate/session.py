"""What the debugger, its VPs and its breakpoints share: the session with the VMM, and the symbols."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from trapgate import errors
from trapgate.connection import Connection
from trapgate.debug.v1 import breakpoints_pb2, messages_pb2
from trapgate.pending import Pending

if TYPE_CHECKING:
    from trapgate.breakpoint import Breakpoint
    from trapgate.symbols import Symbols


#: A breakpoint of the VMM's table: its kind, its address and its length in bytes.
Key = tuple["breakpoints_pb2.BreakpointKind.ValueType", int, int]


def as_message(key: Key) -> breakpoints_pb2.Breakpoint:
    """A breakpoint as the protocol has it."""
    kind, address, length = key
    return breakpoints_pb2.Breakpoint(kind=kind, address=address, len=length)


class Session:
    """A session with the VMM, after the attach."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self._number = number
        #: Whether the program has not detached. The VMM may be gone nevertheless.
        self.attached = True
        self.symbols: Symbols | None = None
        # The breakpoints in the VMM's table, by the values of the program that stand for them. A breakpoint whose values the program has dropped stays in the VMM's table.
        self._breakpoints: dict[weakref.ref[Breakpoint], Key] = {}
        # The breakpoints whose setting or removal an exception may have interrupted.
        self._unsure: set[Key] = set()

    def send(self, pending: Pending, request: messages_pb2.Request) -> None:
        """Sends a request of this session."""
        self._check_attached(pending.what)
        if self._unsure:
            self.remove_unused()
        request.session = self._number
        self.connection.send(pending, request)

    def call(self, what: str, request: messages_pb2.Request, kind: str) -> messages_pb2.Answer:
        """Sends a request, and waits for its answer of this kind. `what` is the request as a verb phrase."""
        self._check_attached(what)
        if self._unsure:
            self.remove_unused()
        return self._call(what, request, kind)

    def _call(self, what: str, request: messages_pb2.Request, kind: str) -> messages_pb2.Answer:
        request.session = self._number
        return self.connection.call(what, request, kind)

    def insert(self, value: weakref.ref[Breakpoint], key: Key) -> None:
        """Sets a breakpoint. From now on this value stands for the breakpoint."""
        message = as_message(key)
        self._check_attached("set a breakpoint")
        self.remove_unused()
        # An exception between the request and the last line leaves a breakpoint that no value stands for.
        self._unsure.add(key)
        try:
            self._change("set a breakpoint", breakpoints_pb2.BreakpointChange(insert=message))
        except errors.Refused:
            self._unsure.discard(key)
            raise
        self._breakpoints[value] = key
        self._unsure.discard(key)

    def remove(self, value: weakref.ref[Breakpoint], key: Key) -> None:
        """This value does not stand for the breakpoint any more, which is removed if no other value stands for it."""
        self._unsure.add(key)
        self._breakpoints.pop(value, None)
        self.remove_unused()

    def set_conditions(
        self, key: Key, conditions: list[breakpoints_pb2.Condition], commands: list[breakpoints_pb2.Condition]
    ) -> None:
        """Sets the conditions of a breakpoint, and its commands."""
        wanted = breakpoints_pb2.BreakpointConditions(
            breakpoint=as_message(key), conditions=conditions, commands=commands
        )
        self.call("set a condition", messages_pb2.Request(set_conditions=wanted), "done")

    def stands(self, value: weakref.ref[Breakpoint]) -> bool:
        """Whether this value stands for a breakpoint."""
        return value in self._breakpoints

    def is_set(self, key: Key) -> bool:
        """Whether a value that the program has stands for this breakpoint."""
        for value, of in list(self._breakpoints.items()):
            if value() is None:
                self._breakpoints.pop(value, None)
            elif of == key:
                return True
        return False

    def remove_unused(self) -> None:
        """Removes the breakpoints that no value stands for, also those that an exception has left."""
        for key in list(self._unsure):
            if not self.is_set(key):
                try:
                    self._change("remove a breakpoint", breakpoints_pb2.BreakpointChange(remove=as_message(key)))
                except errors.Refused as error:
                    self._unsure.discard(key)
                    if error.kind != "no_such_breakpoint":
                        raise
            self._unsure.discard(key)

    def _change(self, what: str, change: breakpoints_pb2.BreakpointChange) -> None:
        changes = breakpoints_pb2.BreakpointChanges(changes=[change])
        self._call(what, messages_pb2.Request(set_debug_state=changes), "done")

    def _check_attached(self, what: str) -> None:
        if not self.attached:
            raise errors.SessionEnded(what)

    def address(self, place: int | str) -> int:
        """The address of a place: a number, or the name of a symbol."""
        if isinstance(place, str):
            if self.symbols is None:
                raise errors.NoSymbols(place)
            return self.symbols.address(place)
        if not isinstance(place, int):
            raise errors.BadArgument(f"the place is {place!r}; give an address, or the name of a symbol")
        if not 0 <= place < 1 << 64:
            raise errors.BadRange(place, 1)
        return place

    def name_of(self, address: int) -> str:
        """` <function+distance>` if symbols are loaded that have it, for `repr`."""
        found = None if self.symbols is None else self.symbols.function(address)
        if found is None:
            return ""
        name, distance = found
        return f" <{name}+{distance}>" if distance else f" <{name}>"
