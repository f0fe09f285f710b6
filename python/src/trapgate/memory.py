"""Guest memory, in requests of a size that the VMM takes."""

from __future__ import annotations

import collections
import time

from trapgate import errors
from trapgate.connection import MAX_TRANSFER
from trapgate.debug.v1 import memory_pb2, messages_pb2
from trapgate.pending import Pending
from trapgate.session import Session

#: The bytes of one request of a long read. The VMM holds at most 32 MiB of answers, so several requests of this size may be on the way.
_PART = 4 << 20
_ON_THE_WAY = 3

#: A read of at most this many bytes is one request, whose answer is copied.
_SHORT = 32 << 10


class Memory:
    """The memory of a guest, by the page tables of one VP or by physical addresses."""

    def __init__(self, session: Session, vp: int | None) -> None:
        self._session = session
        # `None`: physical addresses.
        self._vp = vp

    def read(self, place: int | str, length: int) -> bytes:
        """All of these bytes, or an exception."""
        address = self._range(place, length)
        if length > _SHORT:
            data = bytearray(length)
            self.read_into(address, data)
            return bytes(data)
        part = self._answer(self._ask(address, length), length)
        if len(part) < length:
            raise errors.PartOfMemory(address, length, part)
        return part

    def read_into(self, place: int | str, buffer: bytearray | memoryview) -> None:
        """Fills the buffer. After an exception its contents are not defined."""
        whole = memoryview(buffer).cast("B")
        address = self._range(place, len(whole))
        connection = self._session.connection
        asked: collections.deque[tuple[Pending, memoryview]] = collections.deque()
        begun = done = 0
        try:
            while done < len(whole):
                while begun < len(whole) and len(asked) < _ON_THE_WAY:
                    target = whole[begun : begun + _PART]
                    # It is in the list before it is sent, so that it has no place any more after an exception.
                    pending = connection.request("read memory")
                    pending.place = target
                    asked.append((pending, target))
                    begun += len(target)
                    self._send(pending, address + begun - len(target), len(target))
                pending, target = asked[0]
                try:
                    part = self._answer(pending, len(target))
                except errors.Refused:
                    if not done:
                        raise
                    part = b""
                if pending.place is not None:
                    target[: len(part)] = part
                    if len(part) < len(target):
                        got = bytes(whole[: done + len(part)])
                        raise errors.PartOfMemory(address, len(whole), got)
                asked.popleft()
                done += len(target)
        finally:
            for pending, _ in asked:
                connection.abandon(pending)

    def write(self, place: int | str, data: bytes | bytearray | memoryview) -> None:
        """Writes all of these bytes. An exception may come after a part of a write of more than 16 MiB."""
        whole = memoryview(data).cast("B")
        address = self._range(place, len(whole))
        for start in range(0, len(whole), MAX_TRANSFER):
            write = memory_pb2.WriteMemory(
                address=self._address(address + start), data=bytes(whole[start : start + MAX_TRANSFER])
            )
            self._session.call("write memory", messages_pb2.Request(write_memory=write), "done")

    def read_number(self, place: int | str, size: int) -> int:
        """An unsigned number of `size` bytes, in little-endian order."""
        return int.from_bytes(self.read(place, size), "little")

    def write_number(self, place: int | str, value: int, size: int) -> None:
        """Writes an unsigned number of `size` bytes, in little-endian order. Raises `OverflowError` if the number is too large or negative."""
        self.write(place, value.to_bytes(size, "little"))

    def _ask(self, address: int, length: int) -> Pending:
        pending = self._session.connection.request("read memory")
        self._send(pending, address, length)
        return pending

    def _send(self, pending: Pending, address: int, length: int) -> None:
        read = memory_pb2.ReadMemory(address=self._address(address), len=length)
        self._session.send(pending, messages_pb2.Request(read_memory=read))

    def _answer(self, pending: Pending, length: int) -> bytes:
        connection = self._session.connection
        answer = connection.result(pending, "memory", time.monotonic() + connection.limit)
        if len(answer.memory) > length:
            connection.unusable("read memory", "it has more bytes than were asked for")
        return answer.memory

    def _range(self, place: int | str, length: int) -> int:
        address = self._session.address(place)
        if length < 0 or address + length > 1 << 64:
            raise errors.BadRange(address, length)
        return address

    def _address(self, address: int) -> memory_pb2.GuestAddress:
        if self._vp is None:
            return memory_pb2.GuestAddress(gpa=address)
        return memory_pb2.GuestAddress(gva=memory_pb2.VpAddress(vp=self._vp, gva=address))
