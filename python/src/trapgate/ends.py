"""How a guest ended for good, in words."""

from __future__ import annotations

import os

from trapgate.debug.v1 import run_pb2

_TEXTS = {
    "power_off": "it switched itself off",
    "reset": "it asked for a reset, and is not to start again",
    "reset_failed": "it could not be started again after a reset",
    "triple_fault": "VP {vp} met a triple fault, and it is not to start again",
    "crashed": "the hypervisor cannot go on with VP {vp}{why}",
    "killed": "its debugger ended it",
    "stopped": "the VMM was told to end",
    "released": "the VMM has ended the guest, or has closed the debug server",
}

#: What to do next, where an end is a fault. Otherwise nothing is left to do.
_NEXT = {
    "reset_failed": "see the VMM's log, and start it again",
    "triple_fault": "start it again to see why: a triple fault is a stop while a debugger is attached",
    "crashed": "see the VMM's log, and start it again",
    "released": "see the VMM's log, and connect again if the guest still runs",
}

_INTERNAL = {
    1: "it could not emulate an instruction",
    2: "exceptions within the delivery of an exception",
    3: "it could not deliver an event",
    4: "an exit that it did not expect",
}

_FAULTS = {
    run_pb2.RUNNER_FAULT_DEBUG_STATE: "the debug state of the VP cannot be read or set",
    run_pb2.RUNNER_FAULT_THREAD_PANICKED: "the thread of the VP has panicked",
    run_pb2.RUNNER_FAULT_THREAD_GONE: "the thread of the VP is gone",
}


def text(end: run_pb2.GuestEnd) -> str:
    """How the guest ended, as a sentence without its end."""
    kind = end.WhichOneof("kind")
    if kind is None:
        return "the VMM gives no reason"
    if kind == "triple_fault":
        return _TEXTS[kind].format(vp=end.triple_fault.vp)
    if kind == "crashed":
        cause = _cause(end.crashed.cause)
        return _TEXTS[kind].format(vp=end.crashed.vp, why=f" ({cause})" if cause else "")
    return _TEXTS[kind]


def text_with_advice(end: run_pb2.GuestEnd) -> str:
    """As `text`, with what to do next."""
    kind = end.WhichOneof("kind") or ""
    return f"{text(end)}; {_NEXT.get(kind, 'nothing is left to debug')}"


def _cause(cause: run_pb2.CrashCause) -> str:
    kind = cause.WhichOneof("kind")
    if kind == "internal":
        number = cause.internal.suberror
        return f"internal error {number}: {_INTERNAL[number]}" if number in _INTERNAL else f"internal error {number}"
    if kind == "fail_entry":
        return f"the hardware refused to enter the guest: reason {cause.fail_entry.hardware_reason:#x}"
    if kind == "run":
        return f"the system call that runs the VP failed: {os.strerror(cause.run.errno)}"
    if kind == "unknown_exit":
        return f"an exit with the unknown reason {cause.unknown_exit.reason}"
    if kind == "runner":
        return _FAULTS.get(cause.runner, "a fault of the VMM's own")
    return ""
