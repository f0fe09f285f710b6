"""Programs that use a debugger wrongly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trapgate
from conftest import LONG, StartGuest
from trapgate import StopKind

#: Not a number: no limit can be compared with it.
_NAN = float("nan")

_WRONG: dict[str, tuple[str, Callable[[Any], object]]] = {
    "run_until(None)": ("the breakpoint is None; give one that break_at", lambda vm: vm.run_until(None)),
    "run_until(address)": ("the breakpoint is 4096; give one", lambda vm: vm.run_until(0x1000)),
    "run_until(b, text)": ("timeout is 'x'; give a number of seconds", lambda vm: vm.run_until(vm.break_at(0x100010), "x")),
    "run_until(b, -1)": ("timeout is -1; give", lambda vm: vm.run_until(vm.break_at(0x100010), -1)),
    "run_until(b, nan)": ("timeout is nan; give", lambda vm: vm.run_until(vm.break_at(0x100010), _NAN)),
    "step_n(text)": ("count is '3'; give a number", lambda vm: vm.step_n("3")),
    "step_n(-1)": ("count is -1; give a number", lambda vm: vm.step_n(-1)),
    "break_at(None)": ("the place is None; give an address", lambda vm: vm.break_at(None)),
    "watch(0, None)": ("length is None; give a number", lambda vm: vm.watch(0x1000, None)),
    "vp(-1)": ("the index of the VP is -1", lambda vm: vm.vp(-1)),
    "stop_on(STEP)": ("StopKind.STEP is no event that can be chosen; choose from", lambda vm: vm.stop_on([StopKind.STEP])),
    "stop_on(text)": ("'p' is no event that can be chosen", lambda vm: vm.stop_on("panic")),
    "stop_on(None)": ("None is no set of events", lambda vm: vm.stop_on(None)),
}


def test_arguments_are_checked_before_the_guest_runs(start: StartGuest) -> None:
    guest = start()
    with guest.connect() as vm:
        for what, (text, call) in _WRONG.items():
            with pytest.raises(trapgate.BadArgument) as caught:
                call(vm)
            assert text in str(caught.value), what
            assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)
            assert not vm.running, what
            # The VMM refuses it while the guest runs.
            assert vm.vp(0).pc == 0x100000, what
        removed = vm.break_at(0x100020)
        removed.remove()
        with pytest.raises(trapgate.BadArgument, match="set it again"):
            vm.run_until(removed)
        vm.resume()
        for wait in (lambda: vm.wait("1"), lambda: vm.wait_for("panic")):  # type: ignore[arg-type]
            with pytest.raises(trapgate.BadArgument):
                wait()  # type: ignore[no-untyped-call]
        assert vm.running


def test_the_arguments_of_connect() -> None:
    with pytest.raises(trapgate.BadArgument, match="a member of IfLost"):
        trapgate.connect("unix:/nonexistent", if_lost="kill")  # type: ignore[arg-type]
    with pytest.raises(trapgate.BadArgument, match="request_limit"):
        trapgate.connect("unix:/nonexistent", request_limit=-1)
    with pytest.raises(trapgate.BadAddress):
        trapgate.connect(None)  # type: ignore[arg-type]


def test_a_breakpoint_of_another_debugger(start: StartGuest, tmp_path: Path) -> None:
    with start(1).connect() as one, start(2).connect() as two:
        with pytest.raises(trapgate.BadArgument, match="is of another debugger"):
            two.run_until(one.break_at(0x100010))
        assert not two.running and two.vp(0).pc == 0x100000


def test_two_threads_do_not_destroy_the_connection(start: StartGuest) -> None:
    guest = start()
    with guest.connect() as vm:
        expected = vm.read_physical(0x100000, 200_000)
        begin = threading.Barrier(3)
        told = []
        wrong: list[BaseException] = []

        def read() -> None:
            begin.wait()
            for _ in range(200):
                try:
                    assert vm.read_physical(0x100000, 200_000) == expected
                except trapgate.InUse as error:
                    told.append(str(error))
                except BaseException as error:
                    wrong.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and vm.read_physical(0x100000, 200_000) == expected
        for text in told:
            assert text.startswith("read memory: another thread is using this debugger, and one thread at a time may; ")


def test_a_thread_that_waits_does_not_hold_up_another(start: StartGuest) -> None:
    guest = start()
    with guest.connect() as vm:
        vm.resume()
        ended = []

        def wait() -> None:
            with pytest.raises(trapgate.Gone):
                vm.wait(timeout=None)
            ended.append(True)

        thread = threading.Thread(target=wait)
        thread.start()
        while not vm._session.connection._held:
            pass
        with pytest.raises(trapgate.InUse, match="interrupt the guest: .* let the thread finish"):
            vm.interrupt()
        guest.process.kill()
        thread.join(LONG)
        assert ended
