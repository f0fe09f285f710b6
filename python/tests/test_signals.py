"""Exceptions of signal handlers, as Control-C raises them, at every point of a request."""

from __future__ import annotations

import contextlib
import dis
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import trapgate
from conftest import LONG, Guest, StartGuest
from peer import Peer, Serve
from trapgate import Symbols
from trapgate.debug.v1 import breakpoints_pb2, messages_pb2, nothing_pb2, run_pb2

_PACKAGE = str(Path(trapgate.__file__).parent)

_BREAKPOINT = 0x1000
_BYTES = bytes(range(256)) * 300

#: After these the interpreter runs the handlers of signals, and an instruction of the same function follows.
_CHECKED = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD"}


def play(peer: Peer) -> None:
    """A guest that stops at the breakpoint at once."""
    peer.attach()
    table: set[tuple[int, int]] = set()
    while message := peer.receive():
        request = messages_pb2.Request.FromString(message)
        kind = request.WhichOneof("kind")
        if kind == "resume":
            found = breakpoints_pb2.Breakpoint(kind=breakpoints_pb2.BREAKPOINT_KIND_SOFTWARE, address=_BREAKPOINT, len=1)
            reason = run_pb2.DebugStopReason.Breakpoint(vp=0, breakpoint=found)
            stop = run_pb2.StopEvent(reason=run_pb2.DebugStopReason(breakpoint=reason), vps=[0])
            peer.answer(request.id, stop=stop)
        elif kind == "read_memory":
            peer.answer(request.id, memory=_BYTES[: request.read_memory.len])
        elif kind == "breakpoints":
            listed = [breakpoints_pb2.BreakpointStatus(breakpoint={"kind": k, "address": a, "len": 1}) for k, a in table]  # type: ignore[arg-type]
            peer.answer(request.id, breakpoints=breakpoints_pb2.BreakpointList(breakpoints=listed))
        else:
            for change in request.set_debug_state.changes:
                at = change.insert if change.HasField("insert") else change.remove
                (table.add if change.HasField("insert") else table.discard)((at.kind, at.address))
            peer.answer(request.id, done=nothing_pb2.Nothing())


class Interruption:
    """Raises `KeyboardInterrupt` at one point of the package where the interpreter runs the handlers of signals."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.raised = False

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes = True
        last = [""]
        names = _names(frame.f_code)

        def opcode(frame: FrameType, event: str, _: Any) -> Any:
            if event == "opcode":
                if last[0] in _CHECKED:
                    self.left -= 1
                    if self.left < 0:
                        self.raised = True
                        raise KeyboardInterrupt
                last[0] = names.get(frame.f_lasti, "")
            return opcode

        return opcode


_NAMES: dict[Any, dict[int, str]] = {}


def _names(code: Any) -> dict[int, str]:
    if code not in _NAMES:
        _NAMES[code] = {one.offset: one.opname for one in dis.get_instructions(code)}
    return _NAMES[code]


def table_of(vm: trapgate.Debugger) -> list[int]:
    """The addresses in the VMM's table of breakpoints."""
    answer = vm._session.call("ask", messages_pb2.Request(breakpoints=nothing_pb2.Nothing()), "breakpoints")
    return [status.breakpoint.address for status in answer.breakpoints.breakpoints]


def _run(vm: trapgate.Debugger, round: trapgate.Breakpoint) -> None:
    vm.run_until(round)


def _read(vm: trapgate.Debugger, round: trapgate.Breakpoint) -> None:
    # Two answers in space of their own, of which one has a place.
    buffer = bytearray(len(_BYTES))
    try:
        vm.read_into(0x1000, buffer)
    finally:
        filled = buffer[:]
        assert vm.read(0x1000, 8) == _BYTES[:8]
        # Nothing comes into the buffer afterwards.
        assert buffer == filled
    assert buffer == _BYTES


def _write(vm: trapgate.Debugger, round: trapgate.Breakpoint) -> None:
    vm.write(0x1000, bytes(1 << 20))


def _breakpoint(vm: trapgate.Debugger, round: trapgate.Breakpoint) -> None:
    with vm.break_at(0x2000):
        pass


def _interrupt(vm: trapgate.Debugger, round: trapgate.Breakpoint) -> None:
    vm.resume()
    vm.interrupt()


@pytest.mark.parametrize("what", [_run, _read, _write, _breakpoint, _interrupt])
def test_an_exception_at_any_point_of_a_request_loses_nothing(
    serve: Serve, what: Callable[[trapgate.Debugger, trapgate.Breakpoint], None]
) -> None:
    generator = random.Random(1)
    with trapgate.connect(serve(play), request_limit=5) as vm:
        round = vm.break_at(_BREAKPOINT)
        for at in range(10_000):
            interruption = Interruption(at)
            with contextlib.suppress(KeyboardInterrupt), interruption:
                what(vm, round)
            # Another one while the program goes on.
            with contextlib.suppress(KeyboardInterrupt), Interruption(generator.randrange(100)):
                if vm.running:
                    vm.wait(5)
                what(vm, round)
            if vm.running:
                assert round.is_reason(vm.wait(5))
            assert vm.read(0x1000, 8) == _BYTES[:8]
            assert round.is_reason(vm.run_until(round, timeout=5))
            assert table_of(vm) in ([_BREAKPOINT], [_BREAKPOINT, 0x2000], [0x2000, _BREAKPOINT])
            if not interruption.raised:
                break
        print(at, "points")
        assert at > 20 and not interruption.raised
        # An exception behind the setting, or before the removal, leaves a breakpoint that can be removed.
        vm.break_at(0x2000).remove()
        assert table_of(vm) == [_BREAKPOINT]


def test_an_exception_behind_the_taking_of_the_lock(serve: Serve) -> None:
    with trapgate.connect(serve(play), request_limit=5) as vm:
        vm._session.connection._in_use.acquire()
        assert vm.read(0x1000, 8) == _BYTES[:8]
        assert not vm._session.connection._in_use.locked()


@pytest.fixture
def control_c() -> Iterator[Callable[[float], None]]:
    """A function that lets a signal come after this number of seconds."""

    def press(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    yield lambda after: signal.setitimer(signal.ITIMER_REAL, after) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_many_signals_at_random_points(
    start: StartGuest, symbols: Symbols, control_c: Callable[[float], None]
) -> None:
    guest: Guest = start()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    end = time.monotonic() + 5
    interrupted = 0
    with guest.connect() as vm:
        vm.symbols = symbols
        round = vm.break_at("do_round")
        while time.monotonic() < end or interrupted < 10:
            try:
                control_c(generator.uniform(1e-5, 5e-3))
                while True:
                    vm.run_until(round, timeout=LONG)
                    vm.step()
                    vm.read(symbols.address("do_round"), generator.choice([8, 100_000]))
                    with vm.break_at("count_primes"):
                        pass
            except KeyboardInterrupt:
                interrupted += 1
            except trapgate.OtherStop as stop:
                # The breakpoint of an interrupted step or block.
                assert stop.stop.kind in (trapgate.StopKind.BREAKPOINT, trapgate.StopKind.STEP)
            control_c(0)
            if vm.running:
                vm.wait(timeout=LONG)
            assert len(vm.read("do_round", 8)) == 8
            inner = vm.break_at("count_primes")
            inner.remove()
            vm.run_until(round, timeout=LONG)
    print(f"{interrupted} calls were interrupted")
