//! alioth tells the hypervisor each change of the memory map.

use crate::descriptors;
use alioth::hv::Error;
use alioth::hv::MemMapOption;
use alioth::hv::VmMemory;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vp_runner::embed::VmHandle;

/// The name of alioth's RAM below 4 GiB in `/proc/self/fd`.
const RAM: &str = "/memfd:ram-low (deleted)";

pub(crate) struct DebuggedMemory<M> {
    pub(crate) inner: M,
    pub(crate) debugger: VmHandle,
}

impl<M: fmt::Debug> fmt::Debug for DebuggedMemory<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// A second mapping of alioth's RAM.
fn map_ram(size: u64) -> io::Result<GuestMemoryMmap> {
    let file = File::from(descriptors::named(RAM)?);
    let size = usize::try_from(size).map_err(io::Error::other)?;
    let range = (GuestAddress(0), size, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).map_err(io::Error::other)
}

impl<M: VmMemory> VmMemory for DebuggedMemory<M> {
    /// At each boot alioth maps its RAM anew.
    fn mem_map(&self, gpa: u64, size: u64, hva: usize, option: MemMapOption) -> Result<(), Error> {
        self.inner.mem_map(gpa, size, hva, option)?;
        if gpa == 0 {
            match map_ram(size) {
                Ok(memory) => self.debugger.set_guest_memory(Arc::new(memory)),
                Err(error) => {
                    eprintln!("vmm: the debugger sees no memory: {error}; use the memfd backend");
                }
            }
        }
        Ok(())
    }

    fn unmap(&self, gpa: u64, size: u64) -> Result<(), Error> {
        if gpa == 0 {
            self.debugger.set_guest_memory(Arc::default());
        }
        self.inner.unmap(gpa, size)
    }

    fn reset(&self) -> Result<(), Error> {
        self.inner.reset()
    }

    fn mark_private_memory(&self, gpa: u64, size: u64, private: bool) -> Result<(), Error> {
        self.inner.mark_private_memory(gpa, size, private)
    }
}
