"""A program attaches to a live guest, runs it and detaches, with 1, 2 and 4 CPUs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import trapgate
from conftest import LONG, SHORT, Guest, StartGuest
from trapgate import StopKind, Symbols


def test_the_program_of_the_guide(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        assert vm.last_stop.kind is StopKind.INTERRUPT
        assert [vp.index for vp in vm.vps] == list(range(guest.cpus))
        vm.symbols = symbols
        with vm.break_at("do_round") as round:
            stop = vm.run_until(round, timeout=LONG)
            assert (stop.kind, stop.address) == (StopKind.BREAKPOINT, symbols.address("do_round"))
            assert vm.current.index == stop.vp
            assert vm.current.reg("rip") == vm.current.pc == round.address
            # The argument is the CPU's structure, and an array has one for each CPU.
            first = symbols.address("cpus")
            size, rest = divmod(vm.current.arg(0) - first, max(vm.current.index, 1))
            assert rest == 0 and (size > 0) == (vm.current.index > 0)
            before = vm.read_u64("counter")
            own = vm.current
            for _ in range(2):
                vm.run_until(round, timeout=LONG)
                while vm.current != own:
                    vm.run_until(round, timeout=LONG)
            assert vm.read_u64("counter") >= before + 2
        assert not round.is_set
        stop = vm.step_n(3)
        assert (stop.kind, stop.vp) == (StopKind.STEP, own.index)
        found = symbols.function(own.pc)
        assert found is not None and found[0] == "do_round" and found[1] > 0
    with pytest.raises(trapgate.SessionEnded):
        vm.resume()
    assert guest.process.poll() is None


def test_after_the_detach_the_guest_runs_without_its_breakpoints(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        vm.run_until(vm.break_at("do_round"), timeout=LONG)
    if guest.cpus > 1:
        guest.wait_for(f"demo guest: CPU {guest.cpus - 1} is up")
    with guest.connect() as vm:
        vm.symbols = symbols
        before = vm.read_u64("counter")
        vm.resume()
        with pytest.raises(trapgate.TimedOut) as caught:
            vm.wait(SHORT)
        assert caught.value.stop.kind is StopKind.INTERRUPT
        assert vm.read_u64("counter") > before


def test_a_program_that_is_killed_takes_its_breakpoints_with_it(start: StartGuest, symbols: Symbols) -> None:
    guest = start()
    program = (
        "import sys, trapgate; vm = trapgate.connect(sys.argv[1], request_limit=100); b = vm.break_at(int(sys.argv[2]));"
        "vm.run_until(b, 100); print('stopped', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, guest.address, str(symbols.address("do_round"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"stopped\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    with guest.connect() as vm:
        before = vm.read_u64(symbols.address("counter"))
        vm.resume()
        with pytest.raises(trapgate.TimedOut):
            vm.wait(SHORT)
        assert vm.read_u64(symbols.address("counter")) > before


@pytest.mark.parametrize("how", ["detach_stopped", "if_lost"])
def test_a_guest_can_be_left_stopped(start: StartGuest, symbols: Symbols, how: str) -> None:
    guest = start()
    vm = trapgate.connect(guest.address, if_lost=trapgate.IfLost.STAY, request_limit=LONG)
    vm.run_until(vm.break_at(symbols.address("do_round")), timeout=LONG)
    here = vm.current.pc, vm.read_u64(symbols.address("counter"))
    if how == "detach_stopped":
        vm.detach_stopped()
    else:
        vm._session.connection.close()
    with guest.connect() as vm:
        vp = next(vp for vp in vm.vps if vp.pc == here[0])
        assert (vp.pc, vm.read_u64(symbols.address("counter"))) == here


def test_one_debugger_at_a_time(start: StartGuest) -> None:
    guest = start()
    with guest.connect() as vm:
        with pytest.raises(trapgate.AlreadyAttached, match="another debugger is attached"):
            trapgate.connect(guest.address)
        # The first is not disturbed.
        assert vm.vp(0).reg("rip") == 0x100000
    with guest.connect() as vm:
        assert len(vm.vps) == 2


def test_the_end_of_a_guest_is_a_stop_and_then_an_error(guest: Guest, symbols: Symbols) -> None:
    with guest.connect() as vm:
        vm.symbols = symbols
        # The guest's own start clears its variables.
        with vm.break_at("do_round") as round:
            vm.run_until(round, timeout=LONG)
        vm.write_u32("scenario", 1)
        vm.resume()
        stop = vm.wait_for(StopKind.POWER_OFF, timeout=LONG)
        assert str(stop).startswith("a power-off")
        vm.resume()
        with pytest.raises(trapgate.GuestEnded, match="the guest has ended: it switched itself off; nothing is left") as end:
            vm.wait(timeout=LONG)
        assert "start it again" not in str(end.value)
        assert "the guest has ended: it switched itself off>" in repr(vm) and not vm.running
        with pytest.raises(trapgate.GuestEnded):
            vm.wait(timeout=LONG)
        # The end of the block does not complain that there is nothing to detach from.
    assert guest.process.wait(LONG) == 0


def test_kill_ends_the_guest(start: StartGuest) -> None:
    guest = start()
    guest.connect().kill()
    guest.process.wait(LONG)


def test_a_vmm_that_dies_ends_every_request(start: StartGuest) -> None:
    guest = start()
    with guest.connect() as vm:
        vm.resume()
        guest.process.kill()
        with pytest.raises(trapgate.Gone, match="see the VMM's log"):
            vm.wait(timeout=LONG)
        with pytest.raises(trapgate.Gone):
            vm.read(0x100000, 8)
        assert "the VMM is gone" in repr(vm)
        assert "Gone" in repr(vm.vp(0))


def test_the_error_of_a_block_is_not_hidden_by_the_end_of_the_block(start: StartGuest) -> None:
    guest = start()
    with pytest.raises(ZeroDivisionError), guest.connect() as vm, vm.break_at(0x100010):
        guest.process.kill()
        guest.process.wait()
        raise ZeroDivisionError
