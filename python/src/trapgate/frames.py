"""Frames on a socket: a length of 4 bytes in little-endian order, then a message of this length.

A signal may raise an exception, as Control-C does, between any two instructions of Python code, also between the end of a system call and the use of its result. Neither a byte
that has come nor the rest of a frame that is being sent may be lost then, because the next call goes on from there. So

- the state of each direction is one value, which one assignment replaces, and
- the number of bytes of a system call is stored by code of the interpreter (`list.extend` calls `map`, which calls the socket), which no signal interrupts.
"""

from __future__ import annotations

import socket
import time
from typing import NamedTuple, Protocol

from trapgate.pending import Pending

_HEADER = 4

#: The space for the next bytes of the stream. A longer frame gets space of its own.
_SPACE = 64 << 10

#: The maximum number of bytes before the bulk memory in a frame.
_LONGEST_HEAD = 64

#: In seconds. A longer wait has no end.
_LONGEST_WAIT = 1e8


class TooLong(Exception):
    """The other side announced a frame of more bytes than are permitted."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"a message of {length} bytes, and {limit} are permitted")


class Closed(Exception):
    """The other side has closed the connection."""


class Places(Protocol):
    """Where the program wants bulk memory."""

    def place(self, head: memoryview, length: int) -> tuple[int, memoryview, int] | None:
        """The place for the end of a long frame, by the first bytes of the frame and its length: how many bytes come before the end, the place, and the number of its owner, from 1."""

    def is_wanted(self, owner: int) -> bool:
        """Whether the owner still wants memory at its place."""


class Frame(NamedTuple):
    """A frame that has come."""

    #: Its bytes, but for those that are at the program's place.
    data: memoryview
    #: How many frames came before.
    number: int
    #: The number of the owner of the place, if the end of the frame is there. Negative if the owner did not want the end any more.
    owner: int | None


class _Incoming(NamedTuple):
    space: memoryview
    # The bytes of `space` that have come and are not used.
    start: int
    end: int
    # A frame that is longer than the space, and how much of it has come.
    long: memoryview | None
    filled: int
    # What came before `long` and the number of its owner, if the place of `long` is the program's.
    head: bytes | None
    owner: int | None
    number: int
    # The number of bytes that a system call has received, before this state is replaced by one with them.
    got: list[int]


class _Outgoing(NamedTuple):
    header: bytes
    message: bytes
    # How many bytes of both are sent.
    done: int
    # The request that the message is.
    request: Pending | None
    # The number of bytes that a system call has sent, before this state is replaced by one without them.
    sent: list[int]


class Frames:
    """The frames of one connection. What an exception interrupts goes on with the next call.

    The end of a long frame, bulk memory, can be received at the place where the program wants it, so that it is not copied.
    """

    def __init__(self, connected: socket.socket, limit: int) -> None:
        self._socket = connected
        self.limit = limit
        # One is used, and the other is free.
        self._spaces = memoryview(bytearray(_SPACE)), memoryview(bytearray(_SPACE))
        self._in = _Incoming(self._spaces[0], 0, 0, None, 0, None, None, 0, [])
        self._out: _Outgoing | None = None

    def put(self, message: bytes, request: Pending | None) -> None:
        """The next frame to be sent. Not before `flush` has sent the frame of before."""
        self._out = _Outgoing(len(message).to_bytes(_HEADER, "little"), message, 0, request, [])

    def is_begun(self, request: Pending) -> bool:
        """Whether the request is sent, or a part of it may be sent and the rest will be."""
        out = self._out
        return (out is not None and out.request is request) or request.is_sent

    def flush(self, deadline: float | None) -> None:
        """Sends the rest of the frame. After a `TimeoutError` there may be a rest."""
        while (out := self._out) is not None:
            if out.sent:
                self._out = out._replace(done=out.done + out.sent[0], sent=[])
                continue
            rest = [memoryview(out.header)[out.done :], memoryview(out.message)[max(out.done - _HEADER, 0) :]]
            if out.done == _HEADER + len(out.message):
                if out.request is not None:
                    out.request.is_sent = True
                self._out = None
                continue
            self._limit(deadline)
            out.sent.extend(map(self._socket.sendmsg, (rest,)))

    def receive(self, deadline: float | None, places: Places) -> Frame | None:
        """The next frame, or `None` if it has not come by the deadline, a value of `time.monotonic`. The same again, until `consume`."""
        while True:
            frame = self._complete(places)
            if frame is not None:
                return frame
            state = self._in
            target = state.space[state.end :] if state.long is None else state.long[state.filled :]
            try:
                self._limit(deadline)
                state.got.extend(map(self._socket.recv_into, (target,)))
            except TimeoutError:
                return None
            except (ConnectionResetError, BrokenPipeError):
                # A side that goes away with unread bytes resets the connection (unix(7)).
                raise Closed from None

    def consume(self) -> None:
        """The frame of `receive` is used."""
        state = self._in
        if state.long is not None:
            self._in = _Incoming(state.space, 0, 0, None, 0, None, None, state.number + 1, [])
        else:
            start = state.start + _HEADER
            length = int.from_bytes(state.space[state.start : start], "little")
            self._in = state._replace(start=start + length, number=state.number + 1)

    def leave(self, owner: int) -> None:
        """The rest of the frame for this owner does not come to its place."""
        state = self._in
        if state.owner == owner and state.long is not None:
            self._in = self._left(state, owner, state.long)

    @staticmethod
    def _left(state: _Incoming, owner: int, long: memoryview) -> _Incoming:
        return state._replace(long=memoryview(bytearray(len(long))), owner=-owner)

    def _complete(self, places: Places) -> Frame | None:
        """The frame, if it has come. Otherwise there is space for more bytes."""
        state = self._in
        if state.got:
            count = state.got[0]
            if count == 0:
                raise Closed
            if state.long is None:
                state = state._replace(end=state.end + count, got=[])
            else:
                state = state._replace(filled=state.filled + count, got=[])
            self._in = state
        if state.long is None:
            have = state.end - state.start
            if have >= _HEADER:
                start = state.start + _HEADER
                length = int.from_bytes(state.space[state.start : start], "little")
                if length > self.limit:
                    raise TooLong(length, self.limit)
                if have >= _HEADER + length:
                    return Frame(state.space[start : start + length], state.number, None)
                # All of the head has to be there.
                if length > _SPACE - _HEADER and have >= _HEADER + _LONGEST_HEAD:
                    self._in = state = self._begin_long(state, start, length, places)
            if state.long is None:
                self._compact(state, have)
                return None
        long = state.long
        assert long is not None
        if state.owner is not None and state.owner > 0 and not places.is_wanted(state.owner):
            self._in = state = self._left(state, state.owner, long)
        if state.filled < len(long):
            return None
        # The program has the rest.
        data = long if state.head is None else memoryview(state.head)
        return Frame(data, state.number, state.owner)

    def _begin_long(self, state: _Incoming, start: int, length: int, places: Places) -> _Incoming:
        placed = places.place(state.space[start : start + _LONGEST_HEAD], length)
        head = owner = None
        if placed is None:
            long = memoryview(bytearray(length))
        else:
            before, long, owner = placed
            head = bytes(state.space[start : start + before])
            start += before
        filled = state.end - start
        long[:filled] = state.space[start : state.end]
        return _Incoming(state.space, 0, 0, long, filled, head, owner, state.number, [])

    def _compact(self, state: _Incoming, have: int) -> None:
        if state.start:
            # The other space, so that the bytes are at their old place until the state names the new one.
            space = self._spaces[state.space is self._spaces[0]]
            space[:have] = state.space[state.start : state.end]
            self._in = state._replace(space=space, start=0, end=have)

    def _limit(self, deadline: float | None) -> None:
        """Lets the next system call wait until the deadline. A deadline that has passed permits what needs no waiting."""
        left = None if deadline is None else max(deadline - time.monotonic(), 1e-6)
        self._socket.settimeout(None if left is None or left > _LONGEST_WAIT else left)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
