"""The reasons why a debugger could not do what a program asked for. Each has the facts as attributes, and its text says what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trapgate.debug.v1 import errors_pb2

if TYPE_CHECKING:
    from trapgate.stop import Stop, StopKind


class Error(Exception):
    """The base of all errors of this package."""


class BadArgument(Error, TypeError, ValueError):
    """An argument cannot be used. Nothing was sent to the VMM."""


class InUse(Error, RuntimeError):
    """Another thread, or a handler of a signal, uses the connection."""

    def __init__(self, request: str) -> None:
        self.request = request
        super().__init__(
            f"{request}: another thread is using this debugger, and one thread at a time may; let the thread finish, or give all "
            "requests to one thread"
        )


class BadAddress(Error, ValueError):
    """The text is no address of a VMM."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(f"`{address}` is not the address of a VMM; write unix:PATH, as behind --rpc of the VMM")


class ConnectFailed(Error, ConnectionError):
    """The socket cannot be used. `source` is the error of the system call."""

    def __init__(self, path: str, source: OSError) -> None:
        self.path = path
        self.source = source
        reason = source.strerror or str(source)
        super().__init__(
            f"cannot connect to {path}: {reason}; check that the VMM runs with --rpc unix:{path}, as the same user"
        )


class ProtocolError(Error):
    """The other side of the socket cannot be talked to. The connection is closed."""


class OtherProtocol(ProtocolError):
    """The first bytes of the other side are no hello of the debug protocol."""

    def __init__(self) -> None:
        super().__init__(
            "the other side does not speak the debug protocol of Trapgate; check the address of the socket"
        )


class OtherVersion(ProtocolError):
    """No version is spoken by both sides. `oldest` and `newest` are those of the other side."""

    def __init__(self, oldest: int, newest: int, ours: int) -> None:
        self.oldest = oldest
        self.newest = newest
        super().__init__(
            f"the other side speaks the versions {oldest} to {newest} of the debug protocol, and this side speaks "
            f"version {ours}; use the same release on both sides"
        )


class BadAnswer(ProtocolError):
    """The VMM sent an answer that cannot be used."""

    def __init__(self, request: str, why: str) -> None:
        self.request = request
        self.why = why
        super().__init__(f"{request}: the VMM's answer cannot be used: {why}; use the same release on both sides")


class Gone(Error, ConnectionError):
    """The connection to the VMM has ended. `why` is the reason, if this side knows it."""

    def __init__(self, request: str, why: str | None = None) -> None:
        self.request = request
        self.why = why
        because = f" ({why})" if why else ""
        super().__init__(
            f"{request}: the connection to the VMM has ended{because}; see the VMM's log (it serves 8 programs at a time), "
            "and connect again"
        )


class NoAnswer(Error, TimeoutError):
    """The VMM has not answered in time. It may still carry out the request. `limit` is in seconds."""

    def __init__(self, request: str, limit: float) -> None:
        self.request = request
        self.limit = limit
        super().__init__(
            f"{request}: the VMM has not answered within {limit:g} s; if it has paused the guest, continue the guest "
            "there, otherwise see its log"
        )


class SessionEnded(Error):
    """The program has detached."""

    def __init__(self, request: str) -> None:
        self.request = request
        super().__init__(f"{request}: this program has detached from the guest; connect again")


class Refused(Error):
    """The VMM refused a request. `kind` is the name of the reason in the protocol, and `detail` is the reason with its facts."""

    def __init__(self, request: str, kind: str, detail: errors_pb2.DebugError, text: str) -> None:
        self.request = request
        self.kind = kind
        self.detail = detail
        super().__init__(f"{request}: {text}")


class AlreadyAttached(Refused):
    """Another debugger is attached."""


class NotStopped(Refused):
    """The request is legal only while the guest is stopped."""


class GuestEnded(Refused):
    """The guest has ended for good."""


class NoSuchVp(Refused):
    """The guest has no VP with this index."""

    @property
    def vp(self) -> int:
        """The index in the request."""
        return self.detail.no_such_vp.vp

    @property
    def count(self) -> int:
        """The number of VPs that the guest has."""
        return self.detail.no_such_vp.count


class NotMapped(Refused):
    """No page maps a virtual address."""

    @property
    def address(self) -> int:
        """The first byte that is not mapped."""
        return self.detail.not_mapped.gva


class NoMemory(Refused):
    """Neither memory nor a device is at a physical address."""

    @property
    def address(self) -> int:
        """The first byte without memory."""
        return self.detail.no_memory.gpa


class Unsupported(Refused):
    """The host or the VMM cannot do this."""


class UnexpectedStop(Error):
    """The guest stopped, and not as the program waited for. It is stopped now. `stop` is the stop, and `wanted` is what the program waited for."""

    def __init__(self, wanted: str, stop: Stop, text: str) -> None:
        self.wanted = wanted
        self.stop = stop
        super().__init__(text)


class OtherStop(UnexpectedStop):
    """The guest stopped for another reason than the program waited for."""

    def __init__(self, wanted: str, stop: Stop) -> None:
        text = f"the guest stopped before {wanted}: {stop}; continue from there, or remove the cause of this stop"
        super().__init__(wanted, stop, text)


class TimedOut(UnexpectedStop, TimeoutError):
    """The guest did not stop in time. It was interrupted. `limit` is in seconds."""

    def __init__(self, wanted: str, limit: float, stop: Stop) -> None:
        self.limit = limit
        text = (
            f"{wanted} did not happen within {limit:g} s; the guest was interrupted and is stopped: look at its "
            "registers, or wait longer"
        )
        super().__init__(wanted, stop, text)


class NoStopOn(Error):
    """The VMM does not tell its debug server of this event of the guest, so the event cannot be a stop. The other events are stops then."""

    def __init__(self, event: StopKind) -> None:
        self.event = event
        super().__init__(
            f"{event} cannot be a stop: this VMM does not tell its debug server of the event; set a breakpoint in the code that causes the event"
        )


class Running(Error):
    """The guest runs, and the request needs a stopped guest."""

    def __init__(self) -> None:
        super().__init__("the guest is running; interrupt it, or wait for its stop")


class NotRunning(Error):
    """The guest is stopped, so no stop can be waited for."""

    def __init__(self) -> None:
        super().__init__("the guest is stopped, so nothing can be waited for; resume it first")


class NoSuchRegister(Error, LookupError):
    """No register has this name. `known` has the names of all registers of the VP."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        self.known = known
        super().__init__(f"there is no register `{name}` on this VP; the names are {', '.join(known)}")


class RegisterTooSmall(Error, ValueError):
    """The value does not fit into the register, which has `bits` bits."""

    def __init__(self, name: str, value: int, bits: int) -> None:
        self.name = name
        self.value = value
        self.bits = bits
        super().__init__(
            f"{value:#x} does not fit into the {bits} bits of the register `{name}`; give a value from 0 to {(1 << bits) - 1:#x}"
        )


class NoArguments(Error):
    """A call's arguments are in registers only in 64-bit code."""

    def __init__(self, vp: int) -> None:
        self.vp = vp
        super().__init__(
            f"the arguments of a call are known in 64-bit code only, and VP {vp} executes other code; read the stack"
        )


class PartOfMemory(Error):
    """Part of the memory could not be read. `data` has the bytes before the first that cannot be read."""

    def __init__(self, address: int, length: int, data: bytes) -> None:
        self.address = address
        self.length = length
        self.data = data
        super().__init__(
            f"only {len(data)} of {length} bytes at {address:#x} can be read; read less, or map the rest first"
        )


class BadRange(Error, ValueError):
    """The range is not in the address space of 64 bits."""

    def __init__(self, address: int, length: int) -> None:
        self.address = address
        self.length = length
        super().__init__(
            f"{length} bytes from {address:#x} are not in the address space of 64 bits; check the address and the length"
        )


class SymbolsError(Error):
    """The symbols cannot be read, or do not have a name."""


class NoSymbols(SymbolsError):
    """A name was given, and no symbols are loaded."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"no symbols are loaded, so `{name}` means nothing; call load_symbols with the ELF file that the guest executes"
        )


class NoSuchSymbol(SymbolsError, LookupError):
    """The file has no such symbol."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"the symbols have no `{name}`; check the spelling, or load the file that has the symbol")


class SeveralSymbols(SymbolsError, LookupError):
    """Several file-local symbols have the name. `addresses` has the address of each."""

    def __init__(self, name: str, addresses: tuple[int, ...]) -> None:
        self.name = name
        self.addresses = addresses
        listed = ", ".join(f"{address:#x}" for address in addresses)
        super().__init__(f"several symbols have the name `{name}`: {listed}; give one of these addresses")


class NotElf(SymbolsError):
    """The file is no ELF file whose symbols can be read."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path} is no ELF file that can be read: {why}; give the ELF file that the guest executes")


class SymbolsNotInstalled(SymbolsError, ImportError):
    """The package that reads ELF files is not installed."""

    def __init__(self) -> None:
        super().__init__("symbols need the package pyelftools; run `pip install trapgate-debug-client[symbols]`")
