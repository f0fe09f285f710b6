"""The symbols and source lines of a guest program. They need `pip install trapgate-debug-client[symbols]`."""

from __future__ import annotations

import bisect
import dataclasses
import os
import posixpath
from typing import Any

from trapgate import errors


@dataclasses.dataclass(frozen=True, repr=False)
class SourceLine:
    """A line of a source file."""

    #: The file, as the compiler has written its name.
    file: str
    #: The line, counted from 1.
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def __repr__(self) -> str:
        return f"<SourceLine {self}>"


class Symbols:
    """The symbols and source lines of an ELF file, which the guest executes at the addresses of the file."""

    def __init__(self, path: str, elf: Any) -> None:
        """For `load`."""
        self._path = path
        self._elf = elf
        # File-local names may have several addresses.
        self._addresses: dict[str, list[int]] = {}
        functions: dict[int, tuple[int, str]] = {}
        table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
        for symbol in table.iter_symbols() if table is not None else ():
            if symbol["st_shndx"] == "SHN_UNDEF" or symbol["st_info"]["type"] in ("STT_FILE", "STT_SECTION"):
                continue
            address = symbol["st_value"]
            known = self._addresses.setdefault(symbol.name, [])
            if address not in known:
                known.append(address)
            if symbol["st_info"]["type"] == "STT_FUNC":
                functions.setdefault(address, (symbol["st_size"], symbol.name))
        self._functions = sorted((start, length, name) for start, (length, name) in functions.items())
        self._lines: list[tuple[int, SourceLine | None]] | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Symbols:
        """Reads an ELF file of a 64-bit little-endian processor."""
        try:
            from elftools.common.exceptions import ELFError
            from elftools.elf.elffile import ELFFile
        except ImportError as error:
            raise errors.SymbolsNotInstalled from error
        import io

        name = os.fspath(path)
        try:
            with open(name, "rb") as file:
                # Lines are read when they are first needed, and the file may be another one then.
                elf = ELFFile(io.BytesIO(file.read()))
            if not elf.little_endian or elf.elfclass != 64:
                raise errors.NotElf(name, "it is for another processor than a 64-bit little-endian one")
            return cls(name, elf)
        except OSError as error:
            raise errors.NotElf(name, error.strerror or str(error)) from error
        except ELFError as error:
            raise errors.NotElf(name, str(error)) from error
        except Exception as error:
            raise _damaged(name, "it", error) from error

    def address(self, name: str) -> int:
        """The address of a symbol."""
        known = self._addresses.get(name)
        if known is None:
            raise errors.NoSuchSymbol(name)
        if len(known) > 1:
            raise errors.SeveralSymbols(name, tuple(known))
        return known[0]

    def function(self, address: int) -> tuple[str, int] | None:
        """The function that contains an address, with the distance of the address from its beginning in bytes."""
        index = bisect.bisect_right(self._functions, address, key=lambda function: function[0])
        if index == 0:
            return None
        start, length, name = self._functions[index - 1]
        distance = address - start
        # Functions of assembler files may have no length.
        return (name, distance) if distance < length or distance == 0 else None

    def line(self, address: int) -> SourceLine | None:
        """The source line of an instruction, if the debug information has one."""
        if self._lines is None:
            self._lines = self._read_lines()
        index = bisect.bisect_right(self._lines, address, key=lambda row: row[0])
        return self._lines[index - 1][1] if index else None

    def _read_lines(self) -> list[tuple[int, SourceLine | None]]:
        """Where each line begins, by addresses. `None` where no line follows."""
        rows: list[tuple[int, SourceLine | None]] = []
        try:
            if not self._elf.has_dwarf_info():
                return []
            dwarf = self._elf.get_dwarf_info()
            for unit in dwarf.iter_CUs():
                program = dwarf.line_program_for_CU(unit)
                if program is None:
                    continue
                folder = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
                files = _Files(program.header, _text(folder.value) if folder else "")
                for entry in program.get_entries():
                    state = entry.state
                    if state is not None:
                        place = None if state.end_sequence else SourceLine(files.name(state.file), state.line)
                        rows.append((state.address, place))
        except Exception as error:
            raise _damaged(self._path, "its debug information", error) from error
        # Of rows at one address, the end of a sequence comes before the beginning of another, and the last line counts.
        rows.sort(key=lambda row: (row[0], row[1] is not None))
        return rows

    def __repr__(self) -> str:
        return f"<Symbols of {self._path}: {len(self._addresses)} names>"


class _Files:
    """The names of the files of one line program."""

    def __init__(self, header: Any, folder: str) -> None:
        self._header = header
        self._folder = folder
        # Before DWARF 5, files are counted from 1, and the folder 0 is that of the unit.
        self._before_5 = header["version"] < 5
        self._names: dict[int, str] = {}

    def name(self, number: int) -> str:
        known = self._names.get(number)
        if known is None:
            known = self._names[number] = self._read(number)
        return known

    def _read(self, number: int) -> str:
        files, folders = self._header["file_entry"], self._header["include_directory"]
        index = number - 1 if self._before_5 else number
        if not 0 <= index < len(files):
            return "?"
        folder_index = files[index].dir_index - (1 if self._before_5 else 0)
        folder = _text(folders[folder_index]) if 0 <= folder_index < len(folders) else ""
        return posixpath.join(self._folder, folder, _text(files[index].name))


def _damaged(path: str, what: str, error: Exception) -> errors.SymbolsError:
    """The error for a file that `pyelftools` cannot read: of damaged files, the package raises exceptions of any class."""
    if isinstance(error, errors.SymbolsError):
        return error
    return errors.NotElf(path, f"{what} is damaged ({type(error).__name__}{f': {error}' if str(error) else ''})")


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
