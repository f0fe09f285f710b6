"""Conditions of breakpoints, which the VP that reaches the breakpoint evaluates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trapgate import errors
from trapgate.debug.v1 import breakpoints_pb2

_PREFIX = "CONDITION_REGISTER_"
_REGISTERS = {name.removeprefix(_PREFIX).lower(): number for name, number in breakpoints_pb2.ConditionRegister.items()}

# Opcodes of agent expressions (GDB manual, appendix "The GDB Agent Expression Mechanism").
_ADD, _SUB, _MUL = 0x02, 0x03, 0x04
_DIV_SIGNED, _DIV_UNSIGNED, _REM_SIGNED, _REM_UNSIGNED = 0x05, 0x06, 0x07, 0x08
_LSH, _RSH_SIGNED, _RSH_UNSIGNED = 0x09, 0x0A, 0x0B
_LOG_NOT, _BIT_AND, _BIT_OR, _BIT_XOR, _BIT_NOT = 0x0E, 0x0F, 0x10, 0x11, 0x12
_EQUAL, _LESS_SIGNED, _LESS_UNSIGNED = 0x13, 0x14, 0x15
_EXT, _ZERO_EXT, _REG, _END = 0x16, 0x2A, 0x26, 0x27
_REF8, _REF16, _REF32, _REF64 = 0x17, 0x18, 0x19, 0x1A
_IF_GOTO, _GOTO = 0x20, 0x21
_PRINTF = 0x34
# By the number of bytes of the constant.
_CONSTANTS = {1: 0x22, 2: 0x23, 4: 0x24, 8: 0x25}


class Value:
    """A number of 64 bits, as the VP will compute it: `register("rdi") == 5`, `(register("rsp") + 8).load_u64() > 0`.

    The operators of Python make larger expressions. `<`, `//`, `%` and `>>` take numbers without a sign; the methods with `signed` in their name take numbers with one. Python
    cannot pass on `and`, `or` and `not`: write `&`, `|` and `.is_zero()`, with parentheses around each comparison, or `and_also` and `or_else`, which evaluate the second
    condition only if it matters.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, emit: Callable[[bytearray], None]) -> None:
        """For the functions of this module: `emit` appends the code that leaves the number on the stack."""
        self._emit = emit

    def __repr__(self) -> str:
        return f"<Value with the bytecode {self.code().hex()}>"

    def code(self) -> bytes:
        """The bytecode of the whole expression."""
        code = bytearray()
        self.emit(code)
        code.append(_END)
        if len(code) > 0xFFFF:
            raise errors.BadArgument(f"the condition has {len(code)} bytes of code; write a shorter one")
        return bytes(code)

    def emit(self, code: bytearray) -> None:
        """Appends the code that leaves the number on the stack."""
        try:
            self._emit(code)
        except RecursionError:
            raise errors.BadArgument("the expression is nested too deeply; write a shorter one") from None

    def __bool__(self) -> bool:
        raise errors.BadArgument(
            "the VP computes this number later, so Python's `and`, `or`, `not` and `if` cannot use it; write `&`, `|` or `.is_zero()`, with parentheses around each comparison"
        )

    def __add__(self, other: Value | int) -> Value:
        return self._with(_ADD, other)

    def __sub__(self, other: Value | int) -> Value:
        return self._with(_SUB, other)

    def __mul__(self, other: Value | int) -> Value:
        return self._with(_MUL, other)

    def __floordiv__(self, other: Value | int) -> Value:
        return self._with(_DIV_UNSIGNED, other)

    def __mod__(self, other: Value | int) -> Value:
        return self._with(_REM_UNSIGNED, other)

    def __lshift__(self, other: Value | int) -> Value:
        return self._with(_LSH, other)

    def __rshift__(self, other: Value | int) -> Value:
        return self._with(_RSH_UNSIGNED, other)

    def __and__(self, other: Value | int) -> Value:
        return self._with(_BIT_AND, other)

    def __or__(self, other: Value | int) -> Value:
        return self._with(_BIT_OR, other)

    def __xor__(self, other: Value | int) -> Value:
        return self._with(_BIT_XOR, other)

    def __invert__(self) -> Value:
        return self._then(_BIT_NOT)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return self._with(_EQUAL, other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return self._with(_EQUAL, other).is_zero()

    def __lt__(self, other: Value | int) -> Value:
        return self._with(_LESS_UNSIGNED, other)

    def __gt__(self, other: Value | int) -> Value:
        return value(other)._with(_LESS_UNSIGNED, self)

    def __le__(self, other: Value | int) -> Value:
        return (self > other).is_zero()

    def __ge__(self, other: Value | int) -> Value:
        return (self < other).is_zero()

    def less_signed(self, other: Value | int) -> Value:
        """`self < other` of numbers with a sign."""
        return self._with(_LESS_SIGNED, other)

    def divided_signed(self, other: Value | int) -> Value:
        """`self / other` of numbers with a sign, rounded toward 0."""
        return self._with(_DIV_SIGNED, other)

    def remainder_signed(self, other: Value | int) -> Value:
        """`self % other` of numbers with a sign: the remainder has the sign of `self`."""
        return self._with(_REM_SIGNED, other)

    def shifted_right_signed(self, other: Value | int) -> Value:
        """`self >> other` of a number with a sign."""
        return self._with(_RSH_SIGNED, other)

    def is_zero(self) -> Value:
        """1 for 0, and 0 for any other number."""
        return self._then(_LOG_NOT)

    def sign_extended(self, bits: int) -> Value:
        """The lowest bits, as a number with a sign."""
        return self._then(_EXT, _bits(bits))

    def zero_extended(self, bits: int) -> Value:
        """The lowest bits, as a number without a sign."""
        return self._then(_ZERO_EXT, _bits(bits))

    def load_u8(self) -> Value:
        """The number of 8 bits without a sign in memory at this address."""
        return self._then(_REF8)

    def load_u16(self) -> Value:
        """The number of 16 bits without a sign in memory at this address."""
        return self._then(_REF16)

    def load_u32(self) -> Value:
        """The number of 32 bits without a sign in memory at this address."""
        return self._then(_REF32)

    def load_u64(self) -> Value:
        """The number of 64 bits without a sign in memory at this address."""
        return self._then(_REF64)

    def and_also(self, other: Value | int) -> Value:
        """1 if both are not 0. `other` is evaluated only if `self` is not 0."""
        return self._choose((value(other) == 0).is_zero(), value(0))

    def or_else(self, other: Value | int) -> Value:
        """1 if one of the two is not 0. `other` is evaluated only if `self` is 0."""
        return self._choose(value(1), (value(other) == 0).is_zero())

    def _then(self, *code: int) -> Value:
        def emit(into: bytearray) -> None:
            self._emit(into)
            into.extend(code)

        return Value(emit)

    def _with(self, opcode: int, other: object) -> Value:
        second = value(other)

        def emit(into: bytearray) -> None:
            self._emit(into)
            second._emit(into)
            into.append(opcode)

        return Value(emit)

    def _choose(self, then: Value, otherwise: Value) -> Value:
        def emit(into: bytearray) -> None:
            self._emit(into)
            to_then = _jump(_IF_GOTO, into)
            otherwise._emit(into)
            to_end = _jump(_GOTO, into)
            _land(to_then, into)
            then._emit(into)
            _land(to_end, into)

        return Value(emit)


def register(name: str) -> Value:
    """The value of a register of x86, extended with zeros to 64 bits.

    The names are those of the general registers, `rip` (the linear address), `rflags`, `cs` and the other selectors, `fs_base`, `gs_base`, `kernel_gs_base`, `cr0` to `cr8` and `efer`.
    """
    number = _REGISTERS.get(name)
    if number is None:
        raise errors.NoSuchRegister(name, tuple(_REGISTERS))
    code = bytes([_REG, *number.to_bytes(2, "big")])
    return Value(lambda into: into.extend(code))


def value(number: object) -> Value:
    """A number as a part of a condition. A negative number is one with a sign."""
    if isinstance(number, Value):
        return number
    if isinstance(number, bool) or not isinstance(number, int) or not -(1 << 63) <= number < 1 << 64:
        raise errors.BadArgument(f"{number!r} is no part of a condition; give a register, or a number of 64 bits")
    unsigned = number % (1 << 64)
    size = next(size for size in _CONSTANTS if unsigned < 1 << (8 * size))
    code = bytes([_CONSTANTS[size], *unsigned.to_bytes(size, "big")])
    return Value(lambda into: into.extend(code))


def printf(format: str, values: Iterable[Value | int]) -> bytes:
    """The bytecode that prints a text, for `Breakpoint.print`. The VMM checks the format."""
    if not isinstance(format, str) or "\0" in format:
        raise errors.BadArgument(f"the format is {format!r}; give a text without a zero byte")
    text = format.encode(errors="surrogateescape") + b"\0"
    numbers = [value(number) for number in values]
    if len(numbers) > 0xFF or len(text) > 0xFFFF:
        raise errors.BadArgument(
            f"the text has {len(text)} bytes and {len(numbers)} values; 65535 and 255 are permitted, so print less"
        )
    code = bytearray()
    # The first value is on top, below the function and the channel.
    for number in [*reversed(numbers), value(0), value(0)]:
        number.emit(code)
    code += bytes([_PRINTF, len(numbers), *len(text).to_bytes(2, "big"), *text, _END])
    if len(code) > 0xFFFF:
        raise errors.BadArgument(f"the text has {len(code)} bytes of code; print less")
    return bytes(code)


def _bits(bits: int) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 64:
        raise errors.BadArgument(f"{bits!r} is no number of bits; give 1 to 64")
    return bits


def _jump(opcode: int, code: bytearray) -> int:
    """Appends a jump, and returns the place of its target."""
    code.extend([opcode, 0, 0])
    return len(code) - 2


def _land(place: int, code: bytearray) -> None:
    """The jump leads to the end of the code so far. Code that is too long for a target is refused as a whole."""
    code[place : place + 2] = min(len(code), 0xFFFF).to_bytes(2, "big")
