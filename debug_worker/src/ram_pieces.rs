//! Reads the RAM in a range of addresses piece by piece, for operations on ranges of any length. Other requests are served between two pieces.
//!
//! Only RAM is read, because a read can change a device. One request finds the end of a long hole, so a range as long as the address space takes no longer
//! than its RAM and its page tables need.

use crate::deadline::CallError;
use crate::stop_reply::vp_of;
use crate::vm::AttachedVm;
use gdb_frontend::target::AddressSpace;
use gdb_frontend::target::MemoryRange;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;

/// The maximum length of a piece, in bytes.
const PIECE: u64 = 256 << 10;

/// RAM that cannot be read is left out in units of this length.
const HOLE: u64 = 4096;

/// Bytes of the guest.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The address of the first byte.
    pub(crate) address: u64,
    /// The bytes, at least one. The bytes of our breakpoints are not among them.
    pub(crate) bytes: Vec<u8>,
}

/// The RAM in a range, in the order of its addresses.
#[derive(Debug)]
pub(crate) struct RamPieces {
    space: AddressSpace,
    /// The address where the next piece is looked for. `None` at the end.
    next: Option<u64>,
    last: u64,
    /// The last address of the RAM at `next`, if it is known.
    ram: Option<u64>,
}

impl RamPieces {
    pub(crate) const fn new(range: MemoryRange) -> Self {
        Self {
            space: range.space,
            next: Some(range.first),
            last: range.last,
            ram: None,
        }
    }

    /// The next piece. `None` at the end of the range.
    pub(crate) async fn next(&mut self, vm: &AttachedVm) -> Result<Option<Piece>, CallError> {
        while let Some(address) = self.next {
            let ram = match self.ram.filter(|ram| *ram >= address) {
                Some(ram) => ram,
                None => match self.extent(vm, address).await? {
                    (true, ram) => *self.ram.insert(ram),
                    (false, hole) => {
                        self.go_on_behind(hole);
                        continue;
                    }
                },
            };
            let len = (ram.min(self.last) - address).min(PIECE - 1) + 1;
            match self.read(vm, address, len).await? {
                bytes if bytes.is_empty() => self.go_on_behind(address | (HOLE - 1)),
                bytes => {
                    self.go_on_behind(address.saturating_add(bytes.len() as u64 - 1));
                    return Ok(Some(Piece { address, bytes }));
                }
            }
        }
        Ok(None)
    }

    fn go_on_behind(&mut self, done: u64) {
        self.next = done.checked_add(1).filter(|next| *next <= self.last);
    }

    /// Whether there is RAM at `address`, and the last address for which the answer is the same.
    async fn extent(&self, vm: &AttachedVm, address: u64) -> Result<(bool, u64), CallError> {
        let (is_ram, last) = match self.space {
            AddressSpace::Virtual(thread) => {
                let request = (vp_of(thread), Gva::new(address));
                let region = vm.call(DebugRequest::MemoryRegion, request).await?;
                let is_ram = region.rights.is_some_and(|rights| rights.ram);
                (is_ram, region.last.value())
            }
            AddressSpace::Physical => {
                let ranges = vm.call(DebugRequest::RamRanges, ()).await?;
                let behind = ranges
                    .iter()
                    .filter(|range| range.len > 0)
                    .map(|range| {
                        let first = range.gpa.value();
                        (first, first.saturating_add(range.len - 1))
                    })
                    .find(|(_, last)| *last >= address);
                match behind {
                    Some((first, last)) if first <= address => (true, last),
                    Some((first, _)) => (false, first - 1),
                    None => (false, u64::MAX),
                }
            }
        };
        Ok((is_ram, last.max(address)))
    }

    /// Reads bytes, as many as can be read. Empty if the first byte cannot be read.
    async fn read(&self, vm: &AttachedVm, address: u64, len: u64) -> Result<Vec<u8>, CallError> {
        let start = match self.space {
            AddressSpace::Virtual(thread) => GuestAddress::Gva {
                vp: vp_of(thread),
                gva: Gva::new(address),
            },
            AddressSpace::Physical => GuestAddress::Gpa(Gpa::new(address)),
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match vm.call(DebugRequest::ReadMemory, (start, len)).await {
            Err(CallError::Refused(
                DebugError::NotMapped { .. }
                | DebugError::NoMemory { .. }
                | DebugError::MemoryOutOfReach { .. },
            )) => Ok(Vec::new()),
            bytes => bytes,
        }
    }
}
