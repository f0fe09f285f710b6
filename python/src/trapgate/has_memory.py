"""The methods that read and write memory, which a debugger and a VP have alike."""

from __future__ import annotations

import abc

from trapgate.memory import Memory


class HasMemory(abc.ABC):
    """Virtual memory. A place is an address, or the name of a symbol. Numbers are unsigned and in little-endian order."""

    @abc.abstractmethod
    def _memory(self) -> Memory:
        """The memory as this VP sees it."""

    def read(self, place: int | str, length: int) -> bytes:
        """Bytes of memory: all of them, or an exception."""
        return self._memory().read(place, length)

    def read_into(self, place: int | str, buffer: bytearray | memoryview) -> None:
        """Fills the buffer, without a copy in between. After an exception its contents are not defined."""
        self._memory().read_into(place, buffer)

    def write(self, place: int | str, data: bytes | bytearray | memoryview) -> None:
        """Writes bytes into memory. The write protection of pages is ignored."""
        self._memory().write(place, data)

    def read_u8(self, place: int | str) -> int:
        """A number of 8 bits."""
        return self._memory().read_number(place, 1)

    def read_u16(self, place: int | str) -> int:
        """A number of 16 bits."""
        return self._memory().read_number(place, 2)

    def read_u32(self, place: int | str) -> int:
        """A number of 32 bits."""
        return self._memory().read_number(place, 4)

    def read_u64(self, place: int | str) -> int:
        """A number of 64 bits."""
        return self._memory().read_number(place, 8)

    def write_u8(self, place: int | str, value: int) -> None:
        """Writes a number of 8 bits."""
        self._memory().write_number(place, value, 1)

    def write_u16(self, place: int | str, value: int) -> None:
        """Writes a number of 16 bits."""
        self._memory().write_number(place, value, 2)

    def write_u32(self, place: int | str, value: int) -> None:
        """Writes a number of 32 bits."""
        self._memory().write_number(place, value, 4)

    def write_u64(self, place: int | str, value: int) -> None:
        """Writes a number of 64 bits."""
        self._memory().write_number(place, value, 8)
