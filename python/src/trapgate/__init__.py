"""Programs that debug a KVM guest of Trapgate: breakpoints, registers and memory, without GDB.

    import trapgate

    with trapgate.connect("unix:/run/me/vm.rpc") as vm:
        vm.load_symbols("kernel.elf")
        with vm.break_at("do_round") as round:
            vm.run_until(round, timeout=10)
            print(vm.current.reg("rip"), vm.current.arg(0), vm.read_u64("counter"))
        vm.step_n(100)
    # The guest runs on.

A program that ends, however it ends, takes its breakpoints with it, and the guest runs on, unless `if_lost` says something else.
"""

from trapgate.breakpoint import Breakpoint
from trapgate.condition import Value, register, value
from trapgate.debugger import Debugger, IfLost, connect
from trapgate.errors import (
    AlreadyAttached,
    BadAddress,
    BadAnswer,
    BadArgument,
    BadRange,
    ConnectFailed,
    Error,
    Gone,
    GuestEnded,
    InUse,
    NoAnswer,
    NoArguments,
    NoMemory,
    NoStopOn,
    NoSuchRegister,
    NoSuchSymbol,
    NoSuchVp,
    NoSymbols,
    NotElf,
    NotMapped,
    NotRunning,
    NotStopped,
    OtherProtocol,
    OtherStop,
    OtherVersion,
    PartOfMemory,
    ProtocolError,
    Refused,
    RegisterTooSmall,
    Running,
    SessionEnded,
    SeveralSymbols,
    SymbolsError,
    SymbolsNotInstalled,
    TimedOut,
    UnexpectedStop,
    Unsupported,
)
from trapgate.stop import Stop, StopKind
from trapgate.symbols import SourceLine, Symbols
from trapgate.vp import Vp

__all__ = [
    "AlreadyAttached",
    "BadAddress",
    "BadAnswer",
    "BadArgument",
    "BadRange",
    "Breakpoint",
    "ConnectFailed",
    "Debugger",
    "Error",
    "Gone",
    "GuestEnded",
    "IfLost",
    "InUse",
    "NoAnswer",
    "NoArguments",
    "NoMemory",
    "NoStopOn",
    "NoSuchRegister",
    "NoSuchSymbol",
    "NoSuchVp",
    "NoSymbols",
    "NotElf",
    "NotMapped",
    "NotRunning",
    "NotStopped",
    "OtherProtocol",
    "OtherStop",
    "OtherVersion",
    "PartOfMemory",
    "ProtocolError",
    "Refused",
    "RegisterTooSmall",
    "Running",
    "SessionEnded",
    "SeveralSymbols",
    "SourceLine",
    "Stop",
    "StopKind",
    "Symbols",
    "SymbolsError",
    "SymbolsNotInstalled",
    "TimedOut",
    "UnexpectedStop",
    "Unsupported",
    "Value",
    "Vp",
    "connect",
    "register",
    "value",
]
