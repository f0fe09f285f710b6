"""What the debugger, its VPs and its breakpoints share: the session with the VMM, and the symbols."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trapgate import errors
from trapgate.connection import Connection
from trapgate.debug.v1 import breakpoints_pb2, messages_pb2

if TYPE_CHECKING:
    from trapgate.breakpoint import Key
    from trapgate.symbols import Symbols


class Session:
    """A session with the VMM, after the attach."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self._number = number
        #: Whether the program has not detached. The VMM may be gone nevertheless.
        self.attached = True
        self.symbols: Symbols | None = None
        #: How many values of the program stand for each breakpoint in the VMM's table.
        self.breakpoints: dict[Key, int] = {}

    def send(self, what: str, request: messages_pb2.Request) -> int:
        """Sends a request of this session, and returns its number. `what` is the request as a verb phrase."""
        if not self.attached:
            raise errors.SessionEnded(what)
        request.session = self._number
        return self.connection.send(what, request)

    def call(self, what: str, request: messages_pb2.Request, kind: str) -> messages_pb2.Answer:
        """Sends a request, and waits for its answer of this kind."""
        if not self.attached:
            raise errors.SessionEnded(what)
        request.session = self._number
        return self.connection.call(what, request, kind)

    def change_breakpoints(self, what: str, change: breakpoints_pb2.BreakpointChange) -> None:
        """Sets or removes a breakpoint."""
        changes = breakpoints_pb2.BreakpointChanges(changes=[change])
        self.call(what, messages_pb2.Request(set_debug_state=changes), "done")

    def address(self, place: int | str) -> int:
        """The address of a place: a number, or the name of a symbol."""
        if isinstance(place, str):
            if self.symbols is None:
                raise errors.NoSymbols(place)
            return self.symbols.address(place)
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
