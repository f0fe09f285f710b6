//! The guest's boot files: recognises kernel files, computes how much RAM they need, and loads them.

use crate::arch::x86_64::layout;
use crate::kernel_facts::BzImageFacts;
use crate::kernel_facts::ElfFacts;
use crate::memory::MemorySize;
use linux_loader::loader::Elf;
use linux_loader::loader::KernelLoader as _;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::bzimage::BzImage;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use thiserror::Error;
use vm_memory::Address as _;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

/// A kernel and an initial RAM disk, read into memory, because a reset loads them again.
pub(crate) struct BootFiles {
    /// The kernel.
    pub kernel: Kernel,
    /// The initial RAM disk.
    pub initrd: Option<Vec<u8>>,
}

/// A kernel file of a kind that can be booted.
pub(crate) struct Kernel {
    bytes: Vec<u8>,
    kind: KernelKind,
    /// The minimum RAM beyond the values in the kernel's headers, in bytes.
    least: u64,
}

enum KernelKind {
    BzImage(BzImageFacts),
    Elf(ElfFacts),
}

/// The entry point of the guest.
pub(crate) enum Entry {
    /// The PVH entry at this address, in 32-bit protected mode.
    Pvh(u64),
    /// Linux's 64-bit entry at this address, with the image's setup header if there is one.
    Linux64(u64, Option<Box<setup_header>>),
}

/// A file that cannot be booted.
#[derive(Debug, Error)]
pub(crate) enum KernelError {
    /// The file cannot be read.
    #[error("cannot read the {what} {path}: {why}; check the path given to --{what}")]
    Read {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The host's error.
        why: std::io::Error,
    },
    /// The file is not a kernel.
    #[error(
        "{path} is not a kernel: {why}; give --kernel a bzImage (/boot/vmlinuz-...), an ELF vmlinux, or an x86-64 ELF file with a PVH note"
    )]
    NotAKernel {
        /// The path of the file.
        path: PathBuf,
        /// The header or field that is wrong, for the message.
        why: String,
    },
    /// The guest has too little memory for the kernel.
    #[error("{given} of memory is too little: the {what} needs {needed}; use --memory {}M", needed.bytes() >> 20)]
    TooLittleMemory {
        /// The file that needs the memory.
        what: &'static str,
        /// The size of the guest's memory.
        given: MemorySize,
        /// The size that is needed.
        needed: MemorySize,
    },
    /// The command line is too long.
    #[error(
        "the kernel command line has {len} bytes, and this kernel takes at most {most}; shorten --cmdline"
    )]
    CommandLineTooLong {
        /// The length of the command line in bytes.
        len: usize,
        /// The maximum length in bytes.
        most: usize,
    },
    /// The loader failed.
    #[error("cannot load the kernel; the file may be damaged")]
    Load(#[from] linux_loader::loader::Error),
    /// The boot parameters could not be written.
    #[error("cannot write the start-up data into guest memory; use a larger --memory")]
    Write(#[from] vm_memory::GuestMemoryError),
}

impl BootFiles {
    /// Reads a kernel and, if a path is given, an initial RAM disk.
    pub(crate) fn read(kernel: &Path, initrd: Option<&Path>) -> Result<Self, KernelError> {
        let bytes = read("kernel", kernel)?;
        let kernel = Kernel::new(bytes).map_err(|why| KernelError::NotAKernel {
            path: kernel.to_owned(),
            why,
        })?;
        let initrd = initrd.map(|path| read("initrd", path)).transpose()?;
        Ok(Self { kernel, initrd })
    }

    /// Loads all files into memory that [`check`](Self::check) found large enough.
    pub(crate) fn load(
        &self,
        memory: &GuestMemoryMmap,
        size: MemorySize,
    ) -> Result<Loaded, KernelError> {
        let entry = self.kernel.load(memory)?;
        let initrd = match &self.initrd {
            Some(bytes) => {
                let place = self.initrd_place(bytes.len() as u64, size)?;
                memory.write_slice(bytes, GuestAddress(place.start))?;
                Some(place)
            }
            None => None,
        };
        Ok(Loaded { entry, initrd })
    }

    /// The highest possible address, so that the kernel does not overwrite it.
    fn initrd_place(&self, len: u64, memory: MemorySize) -> Result<InitrdPlace, KernelError> {
        let (_, low) = memory.ranges()[0];
        let top = low.min(self.kernel.initrd_limit());
        match top.checked_sub(len).map(|start| start & !(PAGE - 1)) {
            Some(start) if start >= self.kernel.end() => Ok(InitrdPlace { start, len }),
            _ => Err(KernelError::TooLittleMemory {
                what: "kernel with its initrd",
                given: memory,
                needed: MemorySize::holding(
                    self.kernel.end().saturating_add(len).saturating_add(PAGE),
                ),
            }),
        }
    }

    /// Checks the size of the memory and the length of the command line.
    pub(crate) fn check(&self, memory: MemorySize, command_line: &str) -> Result<(), KernelError> {
        let end = self.kernel.end();
        let (_, low) = memory.ranges()[0];
        if end > low {
            let needed = MemorySize::holding(end);
            return Err(KernelError::TooLittleMemory {
                what: "kernel",
                given: memory,
                needed,
            });
        }
        if let Some(initrd) = &self.initrd {
            self.initrd_place(initrd.len() as u64, memory)?;
        }
        let most = self.kernel.command_line_limit();
        if command_line.len() > most {
            return Err(KernelError::CommandLineTooLong {
                len: command_line.len(),
                most,
            });
        }
        Ok(())
    }
}

impl Kernel {
    /// Recognises the kind of a kernel. The error is the reason why `bytes` cannot be booted.
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self, String> {
        let kind = if bytes.starts_with(b"\x7fELF") {
            KernelKind::Elf(ElfFacts::new(&bytes)?)
        } else if let Some(facts) = BzImageFacts::new(&bytes)? {
            KernelKind::BzImage(facts)
        } else {
            return Err("it is neither an ELF file nor a bzImage".to_owned());
        };
        Ok(Self {
            bytes,
            kind,
            least: 0,
        })
    }

    /// The built-in demo guest.
    pub(crate) fn demo() -> Self {
        let kernel = Self::new(demo_guest::ELF.to_vec());
        let kernel =
            kernel.expect("the demo guest is an ELF file with a PVH note: its own tests say so");
        Self {
            least: demo_guest::MIN_MEMORY,
            ..kernel
        }
    }

    /// Whether GDB can read symbols from it.
    #[cfg(feature = "gdb")]
    pub(crate) fn is_elf(&self) -> bool {
        matches!(self.kind, KernelKind::Elf(_))
    }

    /// The first address behind the memory that the kernel uses while it starts.
    fn end(&self) -> u64 {
        let end = match &self.kind {
            KernelKind::BzImage(facts) => facts.end,
            KernelKind::Elf(facts) => facts.end(),
        };
        end.max(self.least)
    }

    /// The first address behind the area for an initial RAM disk.
    fn initrd_limit(&self) -> u64 {
        match &self.kind {
            KernelKind::BzImage(facts) => facts.initrd_limit,
            KernelKind::Elf(_) => layout::DEVICE_HOLE_START,
        }
    }

    /// The maximum length of the command line in bytes, without the terminating zero.
    fn command_line_limit(&self) -> usize {
        let room = layout::COMMAND_LINE_SIZE - 1;
        match &self.kind {
            KernelKind::BzImage(facts) => facts.command_line_limit.min(room),
            KernelKind::Elf(_) => room,
        }
    }

    /// Loads the kernel at its addresses.
    fn load(&self, memory: &GuestMemoryMmap) -> Result<Entry, KernelError> {
        let mut file = Cursor::new(self.bytes.as_slice());
        match &self.kind {
            KernelKind::BzImage(_) => {
                let loaded = BzImage::load(memory, None, &mut file, None)?;
                let start = loaded.kernel_load.raw_value() + BZIMAGE_ENTRY_64;
                Ok(Entry::Linux64(start, loaded.setup_header.map(Box::new)))
            }
            KernelKind::Elf(facts) => {
                for zeroes in facts.zeroes() {
                    zero(memory, &zeroes)?;
                }
                let loaded = Elf::load(memory, None, &mut file, None)?;
                Ok(match facts.pvh_entry {
                    Some(entry) => Entry::Pvh(entry),
                    None => Entry::Linux64(loaded.kernel_load.raw_value(), None),
                })
            }
        }
    }
}

/// The addresses that a guest gets in its boot parameters.
pub(crate) struct Loaded {
    /// The entry point.
    pub entry: Entry,
    /// The place of the initial RAM disk, if there is one.
    pub initrd: Option<InitrdPlace>,
}

/// The place of the initial RAM disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InitrdPlace {
    /// The first address.
    pub start: u64,
    /// The length in bytes.
    pub len: u64,
}

const PAGE: u64 = 4096;

/// The offset of the 64-bit entry of a bzImage (Linux boot protocol, "64-bit BOOT PROTOCOL").
const BZIMAGE_ENTRY_64: u64 = 0x200;

/// The loader copies the bytes in the file. The rest of a segment has to read as zero, also after a reset.
fn zero(memory: &GuestMemoryMmap, range: &Range<u64>) -> Result<(), vm_memory::GuestMemoryError> {
    let page = vec![0; usize::try_from(PAGE).expect("a page fits")];
    let mut at = range.start;
    while at < range.end {
        let count = usize::try_from(range.end - at).map_or(page.len(), |left| left.min(page.len()));
        memory.write_slice(&page[..count], GuestAddress(at))?;
        at += count as u64;
    }
    Ok(())
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, KernelError> {
    std::fs::read(path).map_err(|why| KernelError::Read {
        what,
        path: path.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Kernel {
        /// Loads the kernel as `trapgate run` does, into 16 MiB if that is enough.
        pub(crate) fn load_for_test(self) {
            let size: MemorySize = "16M".parse().expect("an amount");
            let files = BootFiles {
                kernel: self,
                initrd: Some(vec![1; 5000]),
            };
            if files.check(size, "").is_ok() {
                let memory = size.allocate().expect("16 MiB");
                // The kernel is loaded or refused; the test checks only that the function returns.
                let _ = files.load(&memory, size);
            }
        }
    }

    fn files(initrd: usize) -> BootFiles {
        BootFiles {
            kernel: Kernel::demo(),
            initrd: Some(vec![7; initrd]),
        }
    }

    fn size(text: &str) -> MemorySize {
        text.parse().expect("an amount")
    }

    #[test]
    fn too_little_memory_says_how_much_is_needed() {
        let error = files(0).check(size("8M"), "").expect_err("too little");
        assert!(error.to_string().ends_with("use --memory 16M"), "{error}");
        let error = files(4 << 20)
            .check(size("16M"), "")
            .expect_err("too little");
        assert!(
            error.to_string().contains("with its initrd needs 21 MiB"),
            "{error}"
        );
        assert!(files(4 << 20).check(size("21M"), "").is_ok());
    }

    #[test]
    fn a_command_line_that_does_not_fit_is_refused() {
        let error = files(0)
            .check(size("32M"), &"x".repeat(layout::COMMAND_LINE_SIZE))
            .expect_err("too long");
        assert!(error.to_string().contains("at most 65535"), "{error}");
    }

    #[test]
    fn a_second_load_is_as_the_first_whatever_the_guest_wrote() {
        let (files, size) = (files(100), size("32M"));
        let memory = size.allocate().expect("32 MiB");
        let contents = || {
            let mut bytes = vec![0; 1 << 20];
            memory
                .read_slice(&mut bytes, GuestAddress(1 << 20))
                .expect("in memory");
            bytes
        };
        let first = files.load(&memory, size).expect("loads");
        let fresh = contents();
        let facts = ElfFacts::new(demo_guest::ELF).expect("a kernel");
        let index = |address: u64| usize::try_from(address - (1 << 20)).expect("small");
        memory
            .write_slice(&vec![0xcc; index(facts.end())], GuestAddress(1 << 20))
            .expect("in memory");
        let again = files.load(&memory, size).expect("loads again");
        assert_eq!(first.initrd, again.initrd);
        let again = contents();
        for segment in facts.segments() {
            let part = index(segment.start)..index(segment.end);
            assert!(again[part.clone()] == fresh[part], "{segment:x?}");
        }
    }
}
