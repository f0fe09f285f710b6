//! The headers of kernel files, read without trusting them.

use crate::arch::x86_64::layout;
use object::LittleEndian;
use object::elf;
use object::read::elf::FileHeader as _;
use object::read::elf::NoteIterator;
use object::read::elf::ProgramHeader as _;
use std::ops::Range;

/// The only kind of ELF file that can be booted.
type ElfHeader = elf::FileHeader64<LittleEndian>;
type ProgramHeader = elf::ProgramHeader64<LittleEndian>;

/// The values in the header of a bzImage (Linux boot protocol, "THE REAL-MODE KERNEL HEADER").
pub(crate) struct BzImageFacts {
    /// The first address behind the memory that the kernel uses while it unpacks itself.
    pub end: u64,
    /// The first address behind the area for the initial RAM disk.
    pub initrd_limit: u64,
    /// The maximum length of the command line in bytes, without the terminating zero.
    pub command_line_limit: usize,
}

/// The values in the headers of an ELF file.
pub(crate) struct ElfFacts {
    /// The PVH entry (`XEN_ELFNOTE_PHYS32_ENTRY`).
    pub pvh_entry: Option<u64>,
    segments: Vec<Segment>,
}

struct Segment {
    physical: Range<u64>,
    virtual_start: u64,
    /// The number of bytes in the file. The rest of the segment has to read as zero.
    in_file: u64,
}

/// The beginning of kernels' virtual addresses.
const UPPER_HALF: u64 = 1 << 63;

impl BzImageFacts {
    /// Boot protocol 2.12 introduced `xloadflags` and the 64-bit entry.
    const OLDEST_VERSION: u16 = 0x020c;
    const XLF_KERNEL_64: u16 = 1;

    /// Returns `None` if the file is not a bzImage, and an error if it is a bzImage that cannot be booted.
    pub(crate) fn new(bytes: &[u8]) -> Result<Option<Self>, String> {
        if bytes.get(0x202..0x206) != Some(b"HdrS") {
            return Ok(None);
        }
        let truncated = || "the bzImage ends within its header".to_owned();
        let version = u16_at(bytes, 0x206).ok_or_else(truncated)?;
        if version < Self::OLDEST_VERSION {
            return Err(format!(
                "its boot protocol is {}.{}, from before Linux 3.8",
                version >> 8,
                version & 0xff
            ));
        }
        let load_flags = u16_at(bytes, 0x236).ok_or_else(truncated)?;
        if load_flags & Self::XLF_KERNEL_64 == 0 {
            return Err("it is a 32-bit Linux kernel".to_owned());
        }
        let initrd_max = u32_at(bytes, 0x22c).ok_or_else(truncated)?;
        let command_line = u32_at(bytes, 0x238).ok_or_else(truncated)?;
        let preferred = u64_at(bytes, 0x258).ok_or_else(truncated)?;
        let needed = u32_at(bytes, 0x260).ok_or_else(truncated)?;
        let start = preferred.max(layout::HIGH_RAM_START);
        let end = start
            .checked_add(u64::from(needed))
            .ok_or("its preferred address wraps")?;
        Ok(Some(Self {
            end: end.max(layout::HIGH_RAM_START + bytes.len() as u64),
            initrd_limit: u64::from(initrd_max) + 1,
            command_line_limit: usize::try_from(command_line).map_err(|error| error.to_string())?,
        }))
    }
}

impl ElfFacts {
    /// The error is the reason why the file cannot be booted.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, String> {
        let header = ElfHeader::parse(bytes)
            .and_then(|header| header.endian().map(|_| header))
            .map_err(|_| "it is not a 64-bit little-endian ELF file".to_owned())?;
        if header.e_machine(LittleEndian) != elf::EM_X86_64 {
            return Err("it is an ELF file for another architecture than x86-64".to_owned());
        }
        if header.e_type(LittleEndian) != elf::ET_EXEC {
            return Err("it is an ELF file that runs at no fixed address (a program, library or object file)".to_owned());
        }
        if usize::from(header.e_phentsize(LittleEndian)) != size_of::<ProgramHeader>() {
            return Err("its ELF program headers have an unknown size".to_owned());
        }
        let mut facts = Self {
            pvh_entry: None,
            segments: Vec::new(),
        };
        let headers = header
            .program_headers(LittleEndian, bytes)
            .map_err(|_| "the ELF file ends within its headers".to_owned())?;
        for header in headers {
            facts.add_segment(bytes, header).ok_or_else(|| {
                "an ELF segment passes the end of the file or of the address space".to_owned()
            })?;
        }
        facts.check_entry(header.e_entry(LittleEndian))?;
        Ok(facts)
    }

    /// Distinguishes kernels from programs by their entry point.
    fn check_entry(&self, elf_entry: u64) -> Result<(), String> {
        let entry = self.pvh_entry.unwrap_or(elf_entry);
        let Some(segment) = self
            .segments
            .iter()
            .find(|segment| segment.physical.contains(&entry))
        else {
            return Err("the ELF file's entry is in none of its segments".to_owned());
        };
        if self
            .segments
            .iter()
            .any(|segment| segment.physical.start < layout::HIGH_RAM_START)
        {
            return Err(
                "a segment of the ELF file is below 1 MiB, where the start-up data is".to_owned(),
            );
        }
        // A Linux kernel is linked for the upper half and entered by its physical address. A program has one address
        // for both.
        if self.pvh_entry.is_none() && segment.virtual_start < UPPER_HALF {
            return Err(
                "the ELF file has no PVH note, and is not a Linux kernel either (a program?)"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The first address behind the last segment.
    pub(crate) fn end(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.physical.end)
            .max()
            .unwrap_or(0)
    }

    /// The physical ranges of the segments.
    #[cfg(test)]
    pub(crate) fn segments(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments.iter().map(|segment| segment.physical.clone())
    }

    /// The parts of segments that are not in the file. They have to read as zero.
    pub(crate) fn zeroes(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments
            .iter()
            .map(|segment| segment.physical.start + segment.in_file..segment.physical.end)
    }

    fn add_segment(&mut self, bytes: &[u8], header: &ProgramHeader) -> Option<()> {
        let kind = header.p_type(LittleEndian);
        if kind != elf::PT_LOAD && kind != elf::PT_NOTE {
            return Some(());
        }
        let content = header.data(LittleEndian, bytes).ok()?;
        if kind == elf::PT_NOTE {
            self.pvh_entry = self.pvh_entry.or(find_pvh_entry(content));
            return Some(());
        }
        let physical = header.p_paddr(LittleEndian);
        let in_file = header.p_filesz(LittleEndian);
        let end = physical.checked_add(header.p_memsz(LittleEndian).max(in_file))?;
        self.segments.push(Segment {
            physical: physical..end,
            in_file,
            virtual_start: header.p_vaddr(LittleEndian),
        });
        Some(())
    }
}

/// Searches a note segment. Kernels align notes to four bytes, whatever alignment the segment has.
fn find_pvh_entry(notes: &[u8]) -> Option<u64> {
    const PADDING: u64 = 4;
    /// Xen's public headers, `elfnote.h`.
    const PHYS32_ENTRY: elf::NoteType = elf::NoteType(18);
    let notes = NoteIterator::<ElfHeader>::new(LittleEndian, PADDING, notes).ok()?;
    notes.map_while(Result::ok).find_map(|note| {
        let found = note.n_type(LittleEndian) == PHYS32_ENTRY && note.name_bytes() == b"Xen\0";
        u32_at(note.desc(), 0).filter(|_| found).map(u64::from)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..)?.get(..2)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..)?.get(..4)?.try_into().ok()?,
    ))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(at..)?.get(..8)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests;
