//! The registers of one VP.

use crate::debugger::Debugger;
use crate::error::Error;
use crate::memory::Address;
use crate::place::Place;
use crate::registers;
use crate::registers::Argument;
use crate::scalar::Scalar;
use crate::symbols::Value;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::regs::DebuggerVpState;

/// One VP of the guest. The VMM checks the index at each request.
#[derive(Debug, Clone, Copy)]
pub struct Vp<'a> {
    pub(crate) debugger: &'a Debugger,
    pub(crate) index: VpIndex,
}

impl Vp<'_> {
    /// The index: 0 is the VP that starts first.
    pub const fn index(&self) -> u32 {
        self.index.index()
    }

    /// All registers, also the vector registers.
    ///
    /// # Errors
    /// The guest is running, or has no such VP.
    pub async fn registers(&self) -> Result<Box<DebuggerVpState>, Error> {
        self.debugger
            .link
            .call("read registers", DebugRequest::GetVpState, self.index)
            .await
    }

    /// Writes all registers.
    ///
    /// # Errors
    /// The guest is running, has no such VP, or the VP refuses a value.
    pub async fn set_registers(&self, state: Box<DebuggerVpState>) -> Result<(), Error> {
        let input = (self.index, state);
        self.debugger
            .link
            .call("write registers", DebugRequest::SetVpState, input)
            .await
    }

    /// The value of a register of at most 64 bits, by its name in lower case: `rax`, `rip`, `cr3`, `fs_base`.
    ///
    /// # Errors
    /// Those of [`registers`](Self::registers), and the VP has no such register.
    pub async fn reg(&self, name: &str) -> Result<u64, Error> {
        registers::get(&mut *self.registers().await?, name)
    }

    /// Writes one register, and leaves the others as they are.
    ///
    /// # Errors
    /// Those of [`reg`](Self::reg) and [`set_registers`](Self::set_registers).
    pub async fn set_reg(&self, name: &str, value: u64) -> Result<(), Error> {
        let mut state = self.registers().await?;
        registers::set(&mut state, name, value)?;
        self.set_registers(state).await
    }

    /// The virtual address of the next instruction. On x86 the base of the code segment is already added.
    ///
    /// # Errors
    /// Those of [`registers`](Self::registers).
    pub async fn pc(&self) -> Result<u64, Error> {
        Ok(match &*self.registers().await? {
            DebuggerVpState::X86_64(state) => state.linear_rip().value(),
            DebuggerVpState::Aarch64(state) => state.pc,
        })
    }

    /// An argument of the call that has just reached a function, counted from 0: integers and pointers only. It is correct at the first instruction of the function.
    ///
    /// # Errors
    /// Those of [`registers`](Self::registers), and the VP executes no 64-bit code.
    pub async fn arg(&self, number: u32) -> Result<u64, Error> {
        let state = self.registers().await?;
        match registers::argument(&state, number) {
            Some(Argument::Value(value)) => Ok(value),
            Some(Argument::OnStack(address)) => self.read(address).await,
            None => Err(Error::NoArguments { vp: self.index() }),
        }
    }

    /// A value in memory, by the page tables of this VP.
    ///
    /// # Errors
    /// The guest is running, or not all bytes can be read.
    pub async fn read<T: Scalar>(&self, place: impl Into<Place<'_>>) -> Result<T, Error> {
        self.debugger.read_of(self.address(place.into())?).await
    }

    /// Bytes of memory, by the page tables of this VP.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn read_bytes(
        &self,
        place: impl Into<Place<'_>>,
        len: usize,
    ) -> Result<Vec<u8>, Error> {
        let address = self.address(place.into())?;
        self.debugger.read_all(address, len).await
    }

    /// Writes a value into memory, by the page tables of this VP. The write protection of pages is ignored.
    ///
    /// # Errors
    /// The guest is running, or a byte has no memory.
    pub async fn write<T: Scalar>(
        &self,
        place: impl Into<Place<'_>>,
        value: T,
    ) -> Result<(), Error> {
        self.write_bytes(place, &value.to_bytes()).await
    }

    /// Writes bytes into memory, by the page tables of this VP.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub async fn write_bytes(
        &self,
        place: impl Into<Place<'_>>,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let address = self.address(place.into())?;
        self.debugger.write_all(address, bytes).await
    }

    /// A value in memory, by its type in the debug information: `struct cpu`, `enum state`, a typedef.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), no symbols are loaded, or they have no such type.
    pub async fn read_struct(
        &self,
        type_name: &str,
        place: impl Into<Place<'_>>,
    ) -> Result<Value, Error> {
        let symbols = self.debugger.symbols();
        let symbols = symbols.ok_or_else(|| Error::NoSymbols(type_name.to_owned()))?;
        let of = symbols.type_named(type_name)?;
        let len = usize::try_from(of.size).unwrap_or(usize::MAX);
        let bytes = self.read_bytes(place, len).await?;
        Ok(Value::decode(&of, &bytes))
    }

    fn address(&self, place: Place<'_>) -> Result<Address, Error> {
        let gva = place.address(self.debugger.symbols())?;
        Ok(Address::Virtual(self.index, gva))
    }
}
