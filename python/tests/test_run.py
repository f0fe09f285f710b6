"""Running, stepping and waiting, in a live guest."""

from __future__ import annotations

import signal
from types import FrameType

import pytest

import trapgate
from conftest import LONG, SHORT, Guest, StartGuest
from trapgate import StopKind, Symbols


def test_every_other_stop_is_an_error_with_the_stop(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        with vm.break_at("count_primes") as inner, vm.break_at("do_round") as round:
            vm.run_until(round, timeout=LONG)
            with pytest.raises(trapgate.OtherStop) as caught:
                while True:
                    vm.run_until(round, timeout=LONG)
            assert inner.is_reason(caught.value.stop) and not round.is_reason(caught.value.stop)
            text = str(caught.value)
            assert f"{inner.address:#x}" in text and f"{round.address:#x}" in text
            # The guest is stopped there, and the program goes on.
            assert vm.current.pc == inner.address
            vm.resume()
            with pytest.raises(trapgate.OtherStop):
                vm.wait_for(StopKind.PANIC, timeout=LONG)
        with vm.break_at(0x1F0000) as never:
            with pytest.raises(trapgate.TimedOut) as late:
                vm.run_until(never, timeout=SHORT)
            assert late.value.stop.kind is StopKind.INTERRUPT and isinstance(late.value, TimeoutError)
            assert not vm.running and vm.vp(0).pc


def test_a_breakpoint_is_gone_with_the_last_value_that_stands_for_it(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        again = vm.break_at("do_round")
        with vm.break_at("do_round") as first:
            assert first.is_set
        assert again.is_set and not first.is_set
        vm.run_until(again, timeout=LONG)
        again.remove()
        again.remove()
        vm.resume()
        with pytest.raises(trapgate.TimedOut) as caught:
            vm.wait(SHORT)
        assert caught.value.stop.kind is StopKind.INTERRUPT


def test_a_running_guest_is_waited_for_and_interrupted(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        with pytest.raises(trapgate.NotRunning, match="resume it first"):
            vm.wait(SHORT)
        vm.resume()
        assert vm.running
        with pytest.raises(trapgate.Running):
            vm.resume()
        with pytest.raises(trapgate.NotStopped, match="interrupt it first"):
            vm.vp(0).reg("rip")
        assert vm.read_physical(0x100000, 4) != bytes(4)
        assert vm.interrupt().kind is StopKind.INTERRUPT
        assert vm.interrupt() is vm.last_stop
        # A breakpoint may be set while the guest runs.
        vm.resume()
        with vm.break_at("do_round") as round:
            assert round.is_reason(vm.wait_for(StopKind.BREAKPOINT, timeout=LONG))


def test_steps_execute_one_instruction_of_one_vp(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        with vm.break_at("is_prime") as function:
            vm.run_until(function, timeout=LONG)
        stepped = vm.current
        others = {vp: vp.pc for vp in vm.vps if vp != stepped}
        places = [stepped.pc]
        for _ in range(5):
            assert vm.step().kind is StopKind.STEP
            places.append(stepped.pc)
        assert len(set(places)) == 6
        assert {vp: vp.pc for vp in others} == others
        stepped.set_reg("rip", places[0])
        vm.step_n(2)
        assert stepped.pc == places[2]


def test_the_current_vp_stays_when_a_stop_concerns_the_whole_guest(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        with vm.break_at("do_round") as round:
            vm.run_until(round, timeout=LONG)
            while vm.current.index != guest.cpus - 1:
                vm.run_until(round, timeout=LONG)
        stepped = vm.current
        vm.resume()
        stop = vm.interrupt()
        assert stop.vp is None and vm.current == stepped
        before = stepped.pc
        assert vm.step().vp == stepped.index and stepped.pc != before


def test_many_steps_are_one_request(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        with vm.break_at("is_prime") as function:
            vm.run_until(function, timeout=LONG)
            stepped = vm.current
            others = {vp: vp.pc for vp in vm.vps if vp != stepped}
            before = stepped.regs()
            # The function is called again and again.
            with pytest.raises(trapgate.OtherStop) as caught:
                vm.step_n(1_000_000)
            stop = caught.value.stop
            assert function.is_reason(stop) and stop.vp == stepped.index and stepped.pc == function.address
            assert "before the end of the steps" in str(caught.value)
        assert stop.steps is not None and 1 < stop.steps < 1_000_000
        # The same way by single steps.
        for name in before:
            stepped.set_reg(name, before[name])
        count = stop.steps
        assert vm.step_n(count - 1).steps == count - 1
        assert stepped.pc != function.address
        assert vm.step().steps is None
        assert stepped.pc == function.address
        assert vm.step_n(0) is vm.last_stop
        assert {vp: vp.pc for vp in others} == others


def test_the_limit_of_a_request_is_the_limit_of_all_its_steps(start: StartGuest) -> None:
    guest = start()
    with trapgate.connect(guest.address, request_limit=SHORT) as vm:
        with pytest.raises(trapgate.TimedOut) as late:
            vm.step_n(1 << 63)
        stop = late.value.stop
        assert stop.kind is StopKind.INTERRUPT and stop.steps is not None and stop.steps > 0
        assert not vm.running and late.value.limit == SHORT


def test_a_watched_write_stops_behind_its_instruction(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        with vm.break_at("do_round") as round:
            vm.run_until(round, timeout=LONG)
        try:
            watch = vm.watch("counter", 8)
        except trapgate.Unsupported as error:
            pytest.skip(str(error))
        with watch:
            before = vm.read_u64("counter")
            stop = vm.run_until(watch, timeout=LONG)
            assert (stop.kind, stop.address) == (StopKind.WATCHPOINT, symbols.address("counter"))
            assert vm.read_u64("counter") == before + 1
            assert "watched bytes" in str(stop) and "8 watched bytes" in repr(watch)
        with pytest.raises(trapgate.Refused, match="cannot watch 3 bytes"):
            vm.watch("counter", 3)


def test_an_interrupted_wait_can_be_repeated(start: StartGuest, symbols: Symbols) -> None:
    """A person in a REPL presses Control-C."""

    def press(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    guest = start()
    before = signal.signal(signal.SIGALRM, press)
    try:
        with guest.connect() as vm:
            vm.resume()
            signal.setitimer(signal.ITIMER_REAL, SHORT)
            with pytest.raises(KeyboardInterrupt):
                vm.wait(timeout=None)
            assert vm.running
            with vm.break_at(symbols.address("do_round")) as round:
                assert round.is_reason(vm.wait(timeout=LONG))
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_hardware_breakpoint_leaves_the_code_as_it_is(start: StartGuest, symbols: Symbols) -> None:
    guest = start()
    with guest.connect() as vm:
        vm.symbols = symbols
        before = vm.read("do_round", 1)
        try:
            round = vm.hbreak_at("do_round")
        except trapgate.Unsupported as error:
            pytest.skip(str(error))
        with round:
            assert "hardware breakpoint at" in repr(round)
            stop = vm.run_until(round, timeout=LONG)
            assert (stop.kind, stop.address) == (StopKind.BREAKPOINT, symbols.address("do_round"))
            assert vm.current.pc == symbols.address("do_round") and vm.read("do_round", 1) == before
            # It is another breakpoint than the software one there.
            with vm.break_at("do_round") as soft:
                assert soft.is_set and not soft.is_reason(stop)
            assert round.is_reason(vm.run_until(round, timeout=LONG))


def test_a_panic_is_a_stop_once_it_is_chosen(start: StartGuest, symbols: Symbols) -> None:
    guest = start(1, "--cmdline", "scenario=panic")
    with guest.connect() as vm:
        vm.symbols = symbols
        everything = {StopKind.RESET, StopKind.POWER_OFF, StopKind.TRIPLE_FAULT, StopKind.PANIC}
        assert vm.stop_on(everything) == everything
        assert vm.stop_on(StopKind.PANIC) == {StopKind.PANIC}
        vm.resume()
        stop = vm.wait_for(StopKind.PANIC, timeout=LONG)
        assert stop.vp == 0 and str(stop) == "a panic of the guest's kernel of VP 0"
        # Without it the same panic is no stop.
        assert vm.stop_on([]) == set()
        with vm.break_at("do_round") as round:
            vm.run_until(round, timeout=LONG)
            vm.write_u32("scenario", 8)
            vm.run_until(round, timeout=LONG)
