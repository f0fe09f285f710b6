"""Registers, memory and symbols of a live guest, and what a REPL shows."""

from __future__ import annotations

from pathlib import Path

import pytest

import trapgate
from conftest import LONG, Guest, StartGuest
from trapgate import Symbols

_RAM = 512 << 20


def test_registers_are_read_back_as_they_were_written(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        with vm.break_at(symbols.address("do_round")) as round:
            vm.run_until(round, timeout=LONG)
        before = vm.current.regs()
        vm.current.set_reg("rbx", 0x1122_3344_5566_7788)
        assert vm.current.reg("rbx") == 0x1122_3344_5566_7788
        vm.current.set_reg("rbx", before["rbx"])
        assert vm.current.regs() == before
        with pytest.raises(trapgate.NoSuchRegister, match="rax, rcx") as caught:
            vm.current.reg("eax")
        assert "rip" in caught.value.known and isinstance(caught.value, LookupError)
        with pytest.raises(trapgate.RegisterTooSmall, match="16 bits"):
            vm.current.set_reg("cs", 0x1_0000)
        with pytest.raises(trapgate.RegisterTooSmall):
            vm.current.set_reg("rax", -1)
        with pytest.raises(trapgate.NoSuchVp) as none:
            vm.vp(guest.cpus).reg("rax")
        assert (none.value.vp, none.value.count) == (guest.cpus, guest.cpus)


def test_arguments_are_known_in_64_bit_code_only(start: StartGuest, symbols: Symbols) -> None:
    guest = start()
    with guest.connect() as vm:
        # The first instruction of the guest is one of 32-bit code.
        with pytest.raises(trapgate.NoArguments, match="VP 0"):
            vm.vp(0).arg(0)
        with vm.break_at(symbols.address("count_primes")) as function:
            vm.run_until(function, timeout=LONG)
        low, high = vm.current.arg(0), vm.current.arg(1)
        assert high == low + 10
        # The seventh is the first on the stack, behind the return address.
        assert vm.current.arg(6) == vm.read_u64(vm.current.reg("rsp") + 8)


def test_memory_is_read_back_as_it_was_written(guest: Guest) -> None:
    with guest.connect() as vm:
        data = bytes(range(256)) * 32
        vm.write(0x2000000, data)
        assert vm.read(0x2000000, len(data)) == data == vm.read_physical(0x2000000, len(data))
        vm.write_physical(0x2000001, b"\xff\xfe")
        assert vm.read_u32(0x2000000) == 0x03FEFF00
        for bits, write, read in [
            (8, vm.write_u8, vm.read_u8),
            (16, vm.write_u16, vm.read_u16),
            (32, vm.write_u32, vm.read_u32),
            (64, vm.write_u64, vm.read_u64),
        ]:
            value = 0xFEDC_BA98_7654_3210 >> (64 - bits)
            write(0x2000000, value)
            assert read(0x2000000) == value
            with pytest.raises(OverflowError):
                write(0x2000000, 1 << bits)
        assert vm.read(0x2000000, 0) == b""


def test_long_reads_and_writes_are_cut_into_requests(start: StartGuest) -> None:
    guest = start()
    with guest.connect() as vm:
        length = (37 << 20) + 12345
        data = bytes(i * 7 % 251 for i in range(4099)) * (length // 4099 + 1)
        data = data[:length]
        vm.write_physical(0x2000000, data)
        assert vm.read_physical(0x2000000, length) == data
        buffer = bytearray(length)
        vm.read_physical_into(0x2000000, buffer)
        assert buffer == data
        for length in (32 << 10, (32 << 10) + 1, 65 << 10, 4 << 20, (4 << 20) + 1):
            assert vm.read(0x2000000, length) == data[:length]


def test_memory_that_ends_within_a_read_is_told_with_what_is_before(start: StartGuest) -> None:
    guest = start()
    with guest.connect() as vm:
        for before in (100, 5 << 20, 8 << 20):
            vm.write_physical(_RAM - before, b"first")
            with pytest.raises(trapgate.PartOfMemory, match=f"only {before} of {before + 1} bytes") as caught:
                vm.read_physical(_RAM - before, before + 1)
            assert caught.value.data[:5] == b"first" and len(caught.value.data) == before
        with pytest.raises(trapgate.NoMemory) as none:
            vm.read_physical(_RAM, 9 << 20)
        assert none.value.address == _RAM
        # No answer of the broken reads is taken for that of another request.
        assert vm.read_physical(_RAM - 100, 5) == b"first"
        for address, length in ((-1, 8), ((1 << 64) - 4, 8), (1 << 64, 1), (0, -1)):
            with pytest.raises(trapgate.BadRange):
                vm.read(address, length)
        with pytest.raises(trapgate.NotMapped) as unmapped:
            with vm.break_at(0x100000) as entry:
                assert entry.is_set
            _long_mode(vm).read_u64(0xFFFF_8000_0000_0000)
        assert unmapped.value.address == 0xFFFF_8000_0000_0000


def _long_mode(vm: trapgate.Debugger) -> trapgate.Vp:
    """Steps until paging is on."""
    while not vm.vp(0).reg("cr0") >> 31:
        vm.step()
    return vm.vp(0)


def test_names_are_places(start: StartGuest, symbols: Symbols, elf: Path, tmp_path: Path) -> None:
    guest = start()
    with guest.connect() as vm:
        with pytest.raises(trapgate.NoSymbols, match="call load_symbols"):
            vm.break_at("do_round")
        with pytest.raises(trapgate.NoSymbols):
            vm.line(0x100000)
        assert "names" in repr(vm.load_symbols(elf))
        with pytest.raises(trapgate.NoSuchSymbol, match="`no_such`"):
            vm.read_u64("no_such")
        line = vm.line("do_round")
        assert line is not None and line.file.endswith("guest/main.c") and line.line > 1
        assert str(line) == f"{line.file}:{line.line}"
        assert vm.line(0) is None and symbols.function(0) is None
        other = tmp_path / "no.elf"
        other.write_bytes(b"no ELF file")
        for path in (other, tmp_path / "missing"):
            with pytest.raises(trapgate.NotElf, match="give the ELF file"):
                vm.load_symbols(path)
        # Those of before stay.
        assert vm.read_u64("counter") == 0


def test_a_repl_shows_where_the_guest_is(start: StartGuest, elf: Path) -> None:
    guest = start(1)
    with guest.connect() as vm:
        assert repr(vm) == f"<Debugger of {guest.address}: 1 VP, stopped by an interruption>"
        assert repr(vm.vp(0)) == "<Vp 0: stopped at 0x100000>"
        vm.load_symbols(elf)
        with vm.break_at("do_round") as round:
            assert repr(round) == f"<Breakpoint: breakpoint at {round.address:#x} <do_round>>"
            stop = vm.run_until(round, timeout=LONG)
        text = f"VP 0 reached the breakpoint at {round.address:#x}"
        assert repr(stop) == f"<Stop: {text}>"
        assert repr(vm) == f"<Debugger of {guest.address}: 1 VP, stopped: {text}>"
        assert repr(round).endswith("<do_round>, removed>")
        assert repr(vm.current) == f"<Vp 0: stopped at {round.address:#x} <do_round>>"
        vm.step()
        assert "<do_round+" in repr(vm.current)
        vm.resume()
        assert repr(vm).endswith(": 1 VP, running>")
        assert repr(vm.vp(0)) == "<Vp 0: running>"
    assert repr(vm).endswith("detached>")


def test_damaged_files_are_told_as_such(elf: Path, start: StartGuest, tmp_path: Path) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile", reason="pyelftools is not installed")
    # Writes the file.
    start(1)
    whole = elf.read_bytes()
    with elf.open("rb") as file:
        read = elffile.ELFFile(file)
        headers, size = read["e_shoff"], read["e_shentsize"]
        sections = {
            section.name: (headers + index * size, section["sh_offset"])
            for index, section in enumerate(read.iter_sections())
        }
    damaged = {}
    for name in (".symtab", ".debug_line", ".debug_info", ".debug_abbrev"):
        header, offset = sections[name]
        # Sizes of sections and flags, as `SHF_COMPRESSED`, and their first bytes.
        damaged[f"{name} size"] = whole[: header + 32] + (1 << 40).to_bytes(8, "little") + whole[header + 40 :]
        damaged[f"{name} flags"] = whole[: header + 8] + b"\xff" * 8 + whole[header + 16 :]
        damaged[name] = whole[:offset] + b"\xff" * 4 + whole[offset + 4 :]
    told = 0
    path = tmp_path / "damaged.elf"
    for what, data in damaged.items():
        path.write_bytes(data)
        try:
            symbols = trapgate.Symbols.load(path)
            symbols.function(0x10073F)
            symbols.line(0x10073F)
        except trapgate.SymbolsError as error:
            told += 1
            assert str(path) in str(error) and str(error).endswith("give the ELF file that the guest executes"), what
    assert told > 5
