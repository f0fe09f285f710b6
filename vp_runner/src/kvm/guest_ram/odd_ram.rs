//! Guest memory that is no plain RAM, for tests.

use crate::memory::slots::MemorySlots;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestRegionMmap;
use vm_memory::MmapRegion;

/// A page of each kind.
pub(crate) const PAGE: usize = 0x1000;
/// 256 KiB of RAM, from 0 on.
pub(crate) const PLAIN: usize = 0x4_0000;
/// Two pages that can only be read. They hold zeros.
pub(crate) const READ_ONLY: u64 = 0x4_0000;
/// Two pages of a file that has shrunk to one.
pub(crate) const SHRUNK: u64 = 0x5_0000;
/// Two pages that cannot be accessed.
pub(crate) const CLOSED: u64 = 0x6_0000;

/// All of them.
pub(crate) fn odd_ram() -> MemorySlots {
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 * PAGE as u64).unwrap();
    let behind = FileOffset::new(file.try_clone().unwrap(), 0);
    let region = |at, file, len, access, flags| {
        let mapping = MmapRegion::<()>::build(file, len, access, flags).unwrap();
        GuestRegionMmap::new(mapping, GuestAddress(at)).unwrap()
    };
    let ram = GuestMemoryMmap::from_regions(vec![
        region(0, None, PLAIN, read_write, anonymous),
        region(READ_ONLY, None, 2 * PAGE, libc::PROT_READ, anonymous),
        region(SHRUNK, Some(behind), 2 * PAGE, read_write, libc::MAP_SHARED),
        region(CLOSED, None, 2 * PAGE, libc::PROT_NONE, anonymous),
    ]);
    file.set_len(PAGE as u64).unwrap();
    ram.unwrap().into()
}
