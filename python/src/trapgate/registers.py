"""Registers by their names, in a register file as the protocol sends it."""

from __future__ import annotations

from google.protobuf.message import Message

from trapgate import errors
from trapgate.debug.v1 import registers_pb2

# In the order of the instruction encoding.
_X86_GENERAL = tuple("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split())

# The message inside the register file (none if empty), its field, and the number of bits.
_X86_OTHERS = {
    **{
        name: ("", name, 64)
        for name in "rip rflags cr0 cr2 cr3 cr4 cr8 efer apic_base kernel_gs_base xcr0".split()
    },
    "fs_base": ("fs", "base", 64),
    "gs_base": ("gs", "base", 64),
    **{name: (name, "selector", 16) for name in "cs ss ds es fs gs tr ldtr".split()},
    "dr6": ("debug", "dr6", 64),
    "dr7": ("debug", "dr7", 64),
    "mxcsr": ("sse", "mxcsr", 32),
    "pkru": ("", "pkru", 32),
}
_X86_BREAKPOINTS = ("dr0", "dr1", "dr2", "dr3")
_ARM64_GENERAL = tuple(f"x{number}" for number in range(31))
_ARM64_OTHERS = tuple("sp_el0 sp_el1 pc cpsr sctlr_el1 tcr_el1 ttbr0_el1 ttbr1_el1".split())

# By the System V ABI of AMD64, section 3.2.3.
_X86_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
# By AAPCS64, section 6.8.2.
_ARM64_ARGUMENTS = _ARM64_GENERAL[:8]

_EFER_LMA = 1 << 10
# The L bit of a code segment, in the format of VMX.
_CS_LONG = 1 << 13


class _Slot:
    """The place of one register in a register file."""

    def __init__(self, holder: Message, field: str, bits: int, index: int | None = None) -> None:
        self.holder = holder
        self.field = field
        self.bits = bits
        # The place in a list.
        self.index = index

    def get(self) -> int:
        value = getattr(self.holder, self.field)
        return int(value if self.index is None else value[self.index])

    def put(self, value: int) -> None:
        if self.index is None:
            setattr(self.holder, self.field, value)
        else:
            getattr(self.holder, self.field)[self.index] = value


def names(state: registers_pb2.VpState) -> tuple[str, ...]:
    """The names of the registers of at most 64 bits that the VP has."""
    if state.WhichOneof("kind") == "aarch64":
        return _ARM64_GENERAL + _ARM64_OTHERS
    present = {"pkru": state.x86_64.HasField("pkru"), "xcr0": state.x86_64.HasField("xcr0")}
    others = (*_X86_OTHERS, *_X86_BREAKPOINTS)
    return _X86_GENERAL + tuple(name for name in others if present.get(name, True))


def get(state: registers_pb2.VpState, name: str) -> int:
    """The value of a register."""
    return _slot(state, name).get()


def put(state: registers_pb2.VpState, name: str, value: int) -> None:
    """Changes a register in the register file."""
    slot = _slot(state, name)
    if not 0 <= value < 1 << slot.bits:
        raise errors.RegisterTooSmall(name, value, slot.bits)
    slot.put(value)


def _slot(state: registers_pb2.VpState, name: str) -> _Slot:
    if name not in names(state):
        raise errors.NoSuchRegister(name, names(state))
    if state.WhichOneof("kind") == "aarch64":
        if name in _ARM64_GENERAL:
            return _Slot(state.aarch64, "x", 64, _ARM64_GENERAL.index(name))
        return _Slot(state.aarch64, name, 64)
    if name in _X86_GENERAL:
        return _Slot(state.x86_64, "gp", 64, _X86_GENERAL.index(name))
    if name in _X86_BREAKPOINTS:
        return _Slot(state.x86_64.debug, "db", 64, _X86_BREAKPOINTS.index(name))
    inside, field, bits = _X86_OTHERS[name]
    return _Slot(getattr(state.x86_64, inside) if inside else state.x86_64, field, bits)


def pc(state: registers_pb2.VpState) -> int:
    """The virtual address of the next instruction."""
    if state.WhichOneof("kind") == "aarch64":
        return state.aarch64.pc
    if _is_64_bit(state):
        return state.x86_64.rip
    # Linear addresses of other code have 32 bits.
    return (state.x86_64.cs.base + state.x86_64.rip) & 0xFFFF_FFFF


def argument(state: registers_pb2.VpState, number: int) -> tuple[str, int] | None:
    """Where an argument of a call is at the first instruction of the function: `("value", value)`, or `("stack", address)` of 8 bytes.

    `None` in code of another width than 64 bits.
    """
    if number < 0:
        raise ValueError(f"arguments are counted from 0, so there is none with the number {number}")
    if state.WhichOneof("kind") == "aarch64":
        in_registers, behind = _ARM64_ARGUMENTS, 0
        # At EL1, where kernels are.
        stack = state.aarch64.sp_el1
    elif _is_64_bit(state):
        # Behind the return address.
        in_registers, behind = _X86_ARGUMENTS, 8
        stack = get(state, "rsp")
    else:
        return None
    if number < len(in_registers):
        return "value", get(state, in_registers[number])
    return "stack", stack + behind + 8 * (number - len(in_registers))


def _is_64_bit(state: registers_pb2.VpState) -> bool:
    x86 = state.x86_64
    return bool(x86.efer & _EFER_LMA and x86.cs.attributes & _CS_LONG)
