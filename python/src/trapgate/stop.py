"""The reasons why a guest stopped."""

from __future__ import annotations

import dataclasses
import enum

from trapgate.debug.v1 import run_pb2


class StopKind(enum.Enum):
    """The kinds of stops. The value is the name in the protocol."""

    #: `interrupt`, or the stop by the attach.
    INTERRUPT = "break_"
    #: A step has ended.
    STEP = "single_step"
    #: A VP is about to execute the instruction at a breakpoint.
    BREAKPOINT = "breakpoint"
    #: A VP accessed watched memory.
    WATCHPOINT = "watchpoint"
    #: A VP had a triple fault. The next resume acts upon it.
    TRIPLE_FAULT = "triple_fault"
    #: The guest asked for a reset, which the next resume carries out.
    RESET = "reset"
    #: The guest asked for a power-off, which the next resume carries out.
    POWER_OFF = "power_off"
    #: The hypervisor cannot run a VP any more.
    CRASH = "crashed"
    #: The guest's kernel reported a panic, and `Debugger.stop_on` has chosen this event.
    PANIC = "panic"

    def __str__(self) -> str:
        return _TEXTS[self]

    def __repr__(self) -> str:
        return f"StopKind.{self.name}"


#: The events that `Debugger.stop_on` chooses from, in the order of their bits in the protocol.
EVENTS = (StopKind.RESET, StopKind.POWER_OFF, StopKind.TRIPLE_FAULT, StopKind.PANIC)

_TEXTS = {
    StopKind.INTERRUPT: "an interruption",
    StopKind.STEP: "the end of a step",
    StopKind.BREAKPOINT: "a breakpoint",
    StopKind.WATCHPOINT: "an access to watched memory",
    StopKind.TRIPLE_FAULT: "a triple fault",
    StopKind.RESET: "a reset",
    StopKind.POWER_OFF: "a power-off",
    StopKind.CRASH: "a crash",
    StopKind.PANIC: "a panic of the guest's kernel",
}


@dataclasses.dataclass(frozen=True, repr=False)
class Stop:
    """A stop of the guest. Its text is for people."""

    kind: StopKind
    #: The index of the VP with the event. `None` if the event concerns the whole guest.
    vp: int | None
    #: The indexes of the VPs that the guest has.
    vps: tuple[int, ...]
    #: The address of the breakpoint, or of the first watched byte.
    address: int | None
    #: The reason, with all its details.
    reason: run_pb2.DebugStopReason
    #: The number of instructions that `step_n` has executed, if it asked for more than one.
    steps: int | None = None
    #: For a stop at a breakpoint with conditions, one of which could not be evaluated: the problem.
    condition_failure: str | None = None

    @classmethod
    def of(cls, event: run_pb2.StopEvent) -> Stop:
        """Raises `ValueError` if the event has no reason."""
        name = event.reason.WhichOneof("kind")
        if name is None:
            raise ValueError("it has no value for `reason`")
        kind = StopKind(name)
        detail = getattr(event.reason, name)
        vp = None
        if kind in (StopKind.RESET, StopKind.POWER_OFF):
            vp = detail.vp if detail.HasField("vp") else None
        elif kind is not StopKind.INTERRUPT:
            vp = detail.vp
        address = None
        if kind is StopKind.BREAKPOINT:
            address = detail.breakpoint.address
        elif kind is StopKind.WATCHPOINT:
            address = detail.address
        steps = event.steps if event.HasField("steps") else None
        failure = event.condition_failure if event.HasField("condition_failure") else None
        return cls(kind, vp, tuple(event.vps), address, event.reason, steps, failure)

    def __str__(self) -> str:
        if self.kind is StopKind.BREAKPOINT:
            return f"VP {self.vp} reached the breakpoint at {self.address:#x}"
        if self.kind is StopKind.WATCHPOINT:
            return f"VP {self.vp} accessed the watched bytes at {self.address:#x}"
        return str(self.kind) if self.vp is None else f"{self.kind} of VP {self.vp}"

    def __repr__(self) -> str:
        return f"<Stop: {self}>"
