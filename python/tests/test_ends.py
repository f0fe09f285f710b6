"""How sessions and guests end: the end of a block, of the last reference, and the texts of a guest's end."""

from __future__ import annotations

import gc
import warnings

import pytest

import trapgate
from conftest import LONG, SHORT, StartGuest
from peer import Peer, Serve
from trapgate import IfLost, StopKind, Symbols
from trapgate.debug.v1 import errors_pb2, messages_pb2, nothing_pb2, run_pb2
from trapgate.refusals import refused


def _block(address: str, if_lost: IfLost, place: int | None, fails: bool) -> None:
    """A session that runs the guest to a place, or leaves it as it is."""
    with trapgate.connect(address, if_lost=if_lost, request_limit=LONG) as vm:
        if place is not None:
            vm.run_until(vm.break_at(place), timeout=LONG)
        if fails:
            raise ZeroDivisionError


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_ends_as_if_lost_says(start: StartGuest, symbols: Symbols, fails: bool) -> None:
    guest = start()

    def block(if_lost: IfLost, place: int | None) -> None:
        if fails:
            with pytest.raises(ZeroDivisionError):
                _block(guest.address, if_lost, place, fails)
        else:
            _block(guest.address, if_lost, place, fails)

    # A guest that the program has not run stays held, as it does when the program dies.
    for if_lost in (IfLost.RESUME, IfLost.KILL):
        block(if_lost, None)
        with guest.connect() as vm:
            assert vm.vp(0).pc == 0x100000
    round = symbols.address("do_round")
    block(IfLost.STAY, round)
    with guest.connect() as vm:
        assert round in [vp.pc for vp in vm.vps]
    # This block has resumed the guest, with the default.
    counter = symbols.address("counter")
    with guest.connect() as vm:
        before = vm.read_u64(counter)
        vm.resume()
        with pytest.raises(trapgate.TimedOut):
            vm.wait(SHORT)
        assert vm.read_u64(counter) > before
    block(IfLost.KILL, round)
    guest.process.wait(LONG)


def test_the_last_reference_ends_the_session_at_once(start: StartGuest) -> None:
    guest = start()
    gc.disable()
    try:
        vm = guest.connect()
        breakpoint = vm.break_at(0x100010)
        vp = vm.vp(0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del vm
            # The VP keeps the session, as it would be of no use without it.
            assert vp.pc == 0x100000 and breakpoint.is_set
            del vp
        assert [str(one.message) for one in caught if "not closed: <Debugger of" in str(one.message)]
        with pytest.raises(trapgate.Gone, match="this program has closed it"):
            breakpoint.remove()
        # Not before the VMM has heard of it.
        guest.connect().kill()
    finally:
        gc.enable()


def test_close_does_what_the_end_of_a_block_does(start: StartGuest) -> None:
    guest = start()
    vm = trapgate.connect(guest.address, if_lost=IfLost.KILL, request_limit=LONG)
    vm.resume()
    vm.close()
    vm.close()
    guest.process.wait(LONG)


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (run_pb2.GuestEnd(power_off=nothing_pb2.Nothing()), "it switched itself off; nothing is left to debug"),
        (run_pb2.GuestEnd(killed=nothing_pb2.Nothing()), "its debugger ended it; nothing is left to debug"),
        (run_pb2.GuestEnd(released=nothing_pb2.Nothing()), "the VMM has ended the guest, or has closed the debug server; see"),
        (
            run_pb2.GuestEnd(triple_fault=run_pb2.GuestEnd.TripleFault(vp=1, shown=True)),
            "VP 1 met a triple fault, and it is not to start again; start it again to see why",
        ),
        (
            run_pb2.GuestEnd(
                crashed=run_pb2.GuestEnd.Crashed(
                    vp=2, cause=run_pb2.CrashCause(internal=run_pb2.CrashCause.Internal(suberror=1)), shown=True
                )
            ),
            "the hypervisor cannot go on with VP 2 (internal error 1: it could not emulate an instruction); see the VMM's log",
        ),
        (
            run_pb2.GuestEnd(
                crashed=run_pb2.GuestEnd.Crashed(vp=0, cause=run_pb2.CrashCause(runner=run_pb2.RUNNER_FAULT_THREAD_PANICKED))
            ),
            "VP 0 (the thread of the VP has panicked); see the VMM's log",
        ),
    ],
)
def test_the_end_of_a_guest_in_words(end: run_pb2.GuestEnd, text: str) -> None:
    said = str(refused("run the guest", errors_pb2.DebugError(ended=errors_pb2.DebugError.Ended(how=end))))
    assert said.startswith("run the guest: the guest has ended: ") and text in said and "shown" not in said


@pytest.mark.parametrize("field", [field.name for field in run_pb2.GuestEnd.DESCRIPTOR.fields])
def test_every_end_of_a_guest_has_a_text(field: str) -> None:
    end = run_pb2.GuestEnd()
    getattr(end, field).SetInParent()
    said = str(refused("run the guest", errors_pb2.DebugError(ended=errors_pb2.DebugError.Ended(how=end))))
    assert ";" in said and "{" not in said and "no reason" not in said


@pytest.mark.parametrize("field", [field.name for field in run_pb2.CrashCause.DESCRIPTOR.fields if field.name != "runner"])
def test_every_cause_of_a_crash_has_a_text(field: str) -> None:
    cause = run_pb2.CrashCause()
    getattr(cause, field).SetInParent()
    end = run_pb2.GuestEnd(crashed=run_pb2.GuestEnd.Crashed(vp=0, cause=cause))
    assert "VP 0 (" in str(refused("run", errors_pb2.DebugError(ended=errors_pb2.DebugError.Ended(how=end))))


def test_a_debugger_of_an_ended_guest_says_so(serve: Serve) -> None:
    def play(peer: Peer) -> None:
        peer.attach()
        request = peer.request()
        end = run_pb2.GuestEnd(triple_fault=run_pb2.GuestEnd.TripleFault(vp=0, shown=True))
        error = errors_pb2.DebugError(ended=errors_pb2.DebugError.Ended(how=end))
        peer.send(messages_pb2.Answer(id=request.id, error=error).SerializeToString())
        peer.until_closed()

    vm = trapgate.connect(serve(play), request_limit=5)
    vm.resume()
    with pytest.raises(trapgate.GuestEnded):
        vm.wait_for(StopKind.POWER_OFF)
    assert "1 VP, the guest has ended: VP 0 met a triple fault" in repr(vm) and not vm.running
    vm._session.connection.close()
