"""The registers of one VP, and memory as the VP sees it."""

from __future__ import annotations

from trapgate import errors, registers
from trapgate.debug.v1 import messages_pb2, registers_pb2
from trapgate.has_memory import HasMemory
from trapgate.memory import Memory
from trapgate.session import Session


class Vp(HasMemory):
    """One VP of the guest. The VMM checks the index at each request."""

    def __init__(self, session: Session, index: int, debugger: object) -> None:
        """For `Debugger.vp`."""
        if not isinstance(index, int) or not 0 <= index < 1 << 32:
            raise errors.BadArgument(f"the index of the VP is {index!r}; give a number from 0")
        self._session = session
        # The session ends with the debugger.
        self._debugger = debugger
        #: 0 is the VP that starts first.
        self.index = index

    def _memory(self) -> Memory:
        return Memory(self._session, self.index)

    def registers(self) -> registers_pb2.VpState:
        """All registers, also the vector registers, as the protocol has them."""
        answer = self._session.call("read registers", messages_pb2.Request(get_vp_state=self.index), "vp_state")
        return answer.vp_state

    def set_registers(self, state: registers_pb2.VpState) -> None:
        """Writes all registers."""
        new = registers_pb2.SetVpState(vp=self.index, state=state)
        self._session.call("write registers", messages_pb2.Request(set_vp_state=new), "done")

    def reg(self, name: str) -> int:
        """The value of a register of at most 64 bits, by its name in lower case: `rax`, `rip`, `cr3`, `fs_base`."""
        return registers.get(self.registers(), name)

    def set_reg(self, name: str, value: int) -> None:
        """Writes one register, and leaves the others as they are."""
        state = self.registers()
        registers.put(state, name, value)
        self.set_registers(state)

    def regs(self) -> dict[str, int]:
        """The values of all registers of at most 64 bits, by their names."""
        state = self.registers()
        return {name: registers.get(state, name) for name in registers.names(state)}

    @property
    def pc(self) -> int:
        """The virtual address of the next instruction. On x86 the base of the code segment is already added."""
        return registers.pc(self.registers())

    def arg(self, number: int) -> int:
        """An argument of the call that has just reached a function, counted from 0: integers and pointers only.

        It is correct at the first instruction of the function.
        """
        place = registers.argument(self.registers(), number)
        if place is None:
            raise errors.NoArguments(self.index)
        where, value = place
        return value if where == "value" else self.read_u64(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vp) and (self._session, self.index) == (other._session, other.index)

    def __hash__(self) -> int:
        return hash((id(self._session), self.index))

    def __repr__(self) -> str:
        # A REPL shows a VP of a running guest too, and of one that is gone.
        try:
            pc = self.pc
        except errors.NotStopped:
            return f"<Vp {self.index}: running>"
        except errors.Error as error:
            return f"<Vp {self.index}: {type(error).__name__}>"
        return f"<Vp {self.index}: stopped at {pc:#x}{self._session.name_of(pc)}>"
