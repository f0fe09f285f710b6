"""Conditions of breakpoints: the bytecode, and live guests with 1, 2 and 4 CPUs."""

from __future__ import annotations

import pytest

import trapgate
from conftest import LONG, Guest, StartGuest
from trapgate import StopKind, Symbols, Value, register
from trapgate.condition import value
from trapgate.debug.v1 import breakpoints_pb2


def test_the_bytecode_of_each_operation() -> None:
    # By the table of opcodes in GDB's manual, appendix "Bytecode Descriptions".
    rdi, end = register("rdi"), "27"
    reg = f"26{breakpoints_pb2.CONDITION_REGISTER_RDI:04x}"
    for expression, code in [
        (rdi + 1, f"{reg} 2201 02"),
        (rdi - 0x100, f"{reg} 230100 03"),
        (rdi * 0x10000, f"{reg} 2400010000 04"),
        (rdi // 2, f"{reg} 2202 06"),
        (rdi % 2, f"{reg} 2202 08"),
        (rdi.divided_signed(2), f"{reg} 2202 05"),
        (rdi.remainder_signed(2), f"{reg} 2202 07"),
        (rdi << 2, f"{reg} 2202 09"),
        (rdi.shifted_right_signed(2), f"{reg} 2202 0a"),
        (rdi >> 2, f"{reg} 2202 0b"),
        (rdi & 2, f"{reg} 2202 0f"),
        (rdi | 2, f"{reg} 2202 10"),
        (rdi ^ 2, f"{reg} 2202 11"),
        (~rdi, f"{reg} 12"),
        (rdi == -1, f"{reg} 25ffffffffffffffff 13"),
        (rdi != 2, f"{reg} 2202 13 0e"),
        (rdi.less_signed(2), f"{reg} 2202 14"),
        (rdi < 2, f"{reg} 2202 15"),
        (rdi > 2, f"2202 {reg} 15"),
        (rdi <= 2, f"2202 {reg} 15 0e"),
        (rdi >= 2, f"{reg} 2202 15 0e"),
        (rdi.sign_extended(8), f"{reg} 16 08"),
        (rdi.zero_extended(16), f"{reg} 2a 10"),
        (rdi.load_u8(), f"{reg} 17"),
        (rdi.load_u16(), f"{reg} 18"),
        (rdi.load_u32(), f"{reg} 19"),
        (rdi.load_u64(), f"{reg} 1a"),
        # Offsets: rdi 0, if_goto 3, const 6, goto 8, then 11.
        (rdi.and_also(2), f"{reg} 20000b 2200 210011 2202 2200 13 0e"),
        (rdi.or_else(2), f"{reg} 20000f 2202 2200 13 0e 210011 2201"),
    ]:
        assert expression.code() == bytes.fromhex(code + end), code


def test_what_is_no_condition_is_refused_before_it_is_sent() -> None:
    rdi = register("rdi")
    with pytest.raises(trapgate.NoSuchRegister, match="kernel_gs_base"):
        register("xmm0")
    for wrong in (1 << 64, -(1 << 63) - 1, 1.5, "5", None, True):
        with pytest.raises(trapgate.BadArgument):
            rdi == wrong
    for bits in (0, 65, True, "8"):
        with pytest.raises(trapgate.BadArgument):
            rdi.sign_extended(bits)  # type: ignore[arg-type]
    with pytest.raises(trapgate.BadArgument, match="parentheses"):
        rdi == 1 and rdi == 2
    with pytest.raises(trapgate.BadArgument, match="parentheses"):
        assert not rdi
    deep: Value = rdi
    for _ in range(100_000):
        deep = deep + 1
    with pytest.raises(trapgate.BadArgument, match="shorter"):
        deep.code()
    with pytest.raises(TypeError):
        hash(rdi)


def test_only_hits_with_a_true_condition_are_stops(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        counter = symbols.address("counter")
        with vm.break_at("do_round") as round:
            round.stop_if(value(counter).load_u64() % 50 == 7, value(counter).load_u64() % 50 == 9)
            for _ in range(6):
                stop = vm.run_until(round, timeout=LONG)
                assert (stop.kind, stop.condition_failure) == (StopKind.BREAKPOINT, None)
                if guest.cpus == 1:
                    assert vm.read_u64(counter) % 50 in (7, 9)
            # The program of the Guide.
            counted = value(vm.address("counter")).load_u64()
            before = vm.read_u64("counter")
            round.stop_if((counted > before + 50) & (register("rdi") != 0))
            vm.run_until(round, timeout=LONG)
            assert vm.read_u64("counter") > before + 50
            round.stop_if()
            assert vm.run_until(round, timeout=LONG).kind is StopKind.BREAKPOINT
        with pytest.raises(trapgate.BadArgument):
            round.stop_if()


def test_a_breakpoint_prints_each_hit_once_and_in_order(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        counter = value(symbols.address("counter")).load_u64()
        with vm.break_at("do_round") as round, vm.break_at("count_primes") as end:
            round.print("%llu 100%%\n", counter)
            before = vm.read_u64("counter")
            end.stop_if(counter > before + 40)
            vm.run_until(end, timeout=LONG)
            hits = [int(line.removesuffix(" 100%")) for line in vm.printed().splitlines()]
            assert len(hits) > 40
            if guest.cpus == 1:
                assert hits == list(range(hits[0], hits[0] + len(hits)))
            assert vm.printed() == ""
            # While the guest runs, and with conditions.
            end.remove()
            round.print("%d\n", -5, conditions=[counter % 4 == 1, counter % 4 == 2])
            vm.resume()
            assert vm.printed(timeout=LONG).startswith("-5\n")
            round.print("nothing", conditions=[value(0)])
            while vm.printed(timeout=0.2):
                pass
            vm.interrupt()
            vm.printed()
            assert vm.printed() == ""
            with pytest.raises(trapgate.Refused, match="values|argument"):
                round.print("%d")
            for wrong in (b"x", "a\0b", "x" * 0x10000):
                with pytest.raises(trapgate.BadArgument):
                    round.print(wrong)  # type: ignore[arg-type]
            with pytest.raises(trapgate.BadArgument, match="255"):
                round.print("%d" * 256, *range(256))


def test_a_condition_that_cannot_be_evaluated_is_a_stop(start: StartGuest, symbols: Symbols) -> None:
    with start().connect() as vm:
        vm.symbols = symbols
        with vm.break_at("do_round") as round:
            round.stop_if(value(0xFFFF_8000_0000_0000).load_u64() == 1)
            stop = vm.run_until(round, timeout=LONG)
            assert stop.condition_failure is not None
            with pytest.raises(trapgate.Refused, match="condition"):
                round.stop_if(*[value(0)] * 1001)
