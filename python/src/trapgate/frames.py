"""Frames on a socket: a length of 4 bytes in little-endian order, then a message of this length."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

_HEADER = 4

#: The space for the next bytes of the stream. A longer frame gets space of its own.
_SPACE = 64 << 10

#: The maximum number of bytes before the bulk memory in a frame.
_LONGEST_HEAD = 64


class TooLong(Exception):
    """The other side announced a frame of more bytes than are permitted."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"a message of {length} bytes, and {limit} are permitted")


class Closed(Exception):
    """The other side has closed the connection."""


#: Finds the place for the end of a long frame: takes the first bytes of the frame and its length, and returns how many bytes come before the end, and the place of the end.
Place = Callable[[memoryview, int], "tuple[int, memoryview] | None"]


class Frames:
    """The frames of one connection. A read that is interrupted goes on where it was.

    The end of a long frame, bulk memory, can be received at the place where the program wants it, so that it is not copied.
    """

    def __init__(self, connected: socket.socket, limit: int) -> None:
        self._socket = connected
        self.limit = limit
        self._space = memoryview(bytearray(_SPACE))
        # The bytes of `_space` that have come and are not used.
        self._start = 0
        self._end = 0
        # A frame that is longer than the space, and how much of it has come.
        self._long: memoryview | None = None
        self._filled = 0
        # What came before `_long`, if the place of `_long` is the program's.
        self._head: bytes | None = None
        self.place: Place = lambda head, length: None

    def send(self, message: bytes, deadline: float | None) -> None:
        """Sends a frame. After a `TimeoutError` a part of the frame may have been sent, so no other can follow."""
        header = len(message).to_bytes(_HEADER, "little")
        self._limit(deadline)
        if len(message) < _SPACE:
            self._socket.sendall(header + message)
            return
        self._socket.sendall(header)
        self._limit(deadline)
        self._socket.sendall(message)

    def receive(self, deadline: float | None) -> memoryview | None:
        """The next frame, or `None` if it has not come by the deadline, a value of `time.monotonic`. It is valid until the next call."""
        while True:
            frame = self._complete()
            if frame is not None:
                return frame
            try:
                self._limit(deadline)
                if self._long is not None:
                    count = self._socket.recv_into(self._long[self._filled :])
                    self._filled += count
                else:
                    count = self._socket.recv_into(self._space[self._end :])
                    self._end += count
            except TimeoutError:
                return None
            except (ConnectionResetError, BrokenPipeError):
                # A side that goes away with unread bytes resets the connection (unix(7)).
                raise Closed from None
            if count == 0:
                raise Closed

    def _complete(self) -> memoryview | None:
        if self._long is not None:
            if self._filled < len(self._long):
                return None
            frame, self._long = self._long, None
            if self._head is not None:
                # The program has the rest.
                frame, self._head = memoryview(self._head), None
            return frame
        have = self._end - self._start
        if have >= _HEADER:
            start = self._start + _HEADER
            length = int.from_bytes(self._space[self._start : start], "little")
            if length > self.limit:
                raise TooLong(length, self.limit)
            if have >= _HEADER + length:
                self._start = start + length
                return self._space[start : start + length]
            if length > _SPACE - _HEADER:
                if have < _HEADER + _LONGEST_HEAD:
                    # All of the head has to be there.
                    self._compact(have)
                    return None
                placed = self.place(self._space[start : start + _LONGEST_HEAD], length)
                if placed is None:
                    self._long = memoryview(bytearray(length))
                else:
                    head, self._long = placed
                    self._head = bytes(self._space[start : start + head])
                    start += head
                self._filled = self._end - start
                self._long[: self._filled] = self._space[start : self._end]
                self._start = self._end = 0
                return None
        self._compact(have)
        return None

    def _compact(self, have: int) -> None:
        if self._start:
            self._space[:have] = bytes(self._space[self._start : self._end])
            self._start, self._end = 0, have

    def _limit(self, deadline: float | None) -> None:
        """Lets the next system call wait until the deadline. A deadline that has passed permits what needs no waiting."""
        left = None if deadline is None else max(deadline - time.monotonic(), 1e-6)
        self._socket.settimeout(left)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
