//! Guest memory, in requests of a size that the VMM takes.

use crate::debugger::Debugger;
use crate::error::Error;
use crate::place::Place;
use crate::scalar::Scalar;
use crate::symbols::Value;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::memory::MAX_TRANSFER;

/// The first byte of a read or write.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Address {
    Virtual(VpIndex, Gva),
    Physical(Gpa),
}

impl Address {
    const fn value(self) -> u64 {
        match self {
            Self::Virtual(_, gva) => gva.value(),
            Self::Physical(gpa) => gpa.value(),
        }
    }

    /// The address `bytes` higher.
    fn plus(self, bytes: usize) -> Option<GuestAddress> {
        let bytes = u64::try_from(bytes).ok()?;
        Some(match self {
            Self::Virtual(vp, gva) => GuestAddress::Gva {
                vp,
                gva: gva.checked_add(bytes)?,
            },
            Self::Physical(gpa) => GuestAddress::Gpa(gpa.checked_add(bytes)?),
        })
    }

    fn bad_range(self, len: usize) -> Error {
        let address = self.value();
        Error::BadRange { address, len }
    }
}

impl Debugger {
    /// A value in memory, by the page tables of the VP of the last stop.
    ///
    /// # Errors
    /// The guest is running, or not all bytes can be read.
    pub async fn read<T: Scalar>(&self, place: impl Into<Place<'_>>) -> Result<T, Error> {
        self.current().read(place).await
    }

    /// Bytes of memory, by the page tables of the VP of the last stop.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn read_bytes(
        &self,
        place: impl Into<Place<'_>>,
        len: usize,
    ) -> Result<Vec<u8>, Error> {
        self.current().read_bytes(place, len).await
    }

    /// Writes a value into memory, by the page tables of the VP of the last stop. The write protection of pages is ignored.
    ///
    /// # Errors
    /// The guest is running, or a byte has no memory.
    pub async fn write<T: Scalar>(
        &self,
        place: impl Into<Place<'_>>,
        value: T,
    ) -> Result<(), Error> {
        self.current().write(place, value).await
    }

    /// Writes bytes into memory, by the page tables of the VP of the last stop.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub async fn write_bytes(
        &self,
        place: impl Into<Place<'_>>,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.current().write_bytes(place, bytes).await
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
        self.current().read_struct(type_name, place).await
    }

    /// Bytes at a physical address, also while the guest runs.
    ///
    /// # Errors
    /// Not all bytes can be read.
    pub async fn read_physical(&self, address: u64, len: usize) -> Result<Vec<u8>, Error> {
        let address = Address::Physical(Gpa::new(address));
        self.read_all(address, len).await
    }

    /// Writes bytes at a physical address, also while the guest runs.
    ///
    /// # Errors
    /// A byte has no memory.
    pub async fn write_physical(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let address = Address::Physical(Gpa::new(address));
        self.write_all(address, bytes).await
    }

    pub(crate) async fn read_of<T: Scalar>(&self, address: Address) -> Result<T, Error> {
        let bytes = self.read_all(address, T::LEN).await?;
        T::from_bytes(&bytes).ok_or_else(|| address.bad_range(T::LEN))
    }

    pub(crate) async fn read_all(&self, address: Address, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let from = address
                .plus(bytes.len())
                .ok_or_else(|| address.bad_range(len))?;
            let wanted = (len - bytes.len()).min(MAX_TRANSFER);
            let read = self
                .link
                .call("read memory", DebugRequest::ReadMemory, (from, wanted))
                .await;
            let part = match read {
                Err(Error::Refused { .. }) if !bytes.is_empty() => Vec::new(),
                read => read?,
            };
            let complete = part.len() == wanted;
            bytes.extend(part);
            if !complete {
                return Err(Error::PartOfMemory {
                    address: address.value(),
                    len,
                    got: bytes.len(),
                });
            }
        }
        Ok(bytes)
    }

    pub(crate) async fn write_all(&self, address: Address, bytes: &[u8]) -> Result<(), Error> {
        for (number, part) in bytes.chunks(MAX_TRANSFER).enumerate() {
            let to = address
                .plus(number * MAX_TRANSFER)
                .ok_or_else(|| address.bad_range(bytes.len()))?;
            let input = (to, part.to_vec());
            self.link
                .call("write memory", DebugRequest::WriteMemory, input)
                .await?;
        }
        Ok(())
    }
}
