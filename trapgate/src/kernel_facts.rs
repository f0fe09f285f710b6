//! What kernel files say about themselves, read without trusting them.

use crate::arch::x86_64::layout;
use std::ops::Range;

/// What the header of a bzImage says (Linux boot protocol, "THE REAL-MODE KERNEL HEADER").
pub struct BzImageFacts {
    /// The first address after what the kernel occupies while it unpacks itself.
    pub end: u64,
    /// The first address after where its initial RAM disk may lie.
    pub initrd_limit: u64,
    /// Bytes of command line, without the terminating zero.
    pub command_line_limit: usize,
}

/// What the headers of an ELF file say.
pub struct ElfFacts {
    /// The entry for virtual machines (`XEN_ELFNOTE_PHYS32_ENTRY`).
    pub pvh_entry: Option<u64>,
    segments: Vec<Segment>,
}

struct Segment {
    physical: Range<u64>,
    virtual_start: u64,
    /// Bytes the file holds; the rest has to read as zero.
    in_file: u64,
}

/// Where kernels' virtual addresses begin.
const UPPER_HALF: u64 = 1 << 63;

impl BzImageFacts {
    /// Boot protocol 2.12 brought `xloadflags`, and with it the 64-bit entry.
    const OLDEST_VERSION: u16 = 0x020c;
    const XLF_KERNEL_64: u16 = 1;

    /// `None` where it is no bzImage at all; an error where it is one that cannot be booted.
    pub fn new(bytes: &[u8]) -> Result<Option<Self>, String> {
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
    const CLASS_64: u8 = 2;
    const LITTLE_ENDIAN: u8 = 1;
    const MACHINE_X86_64: u16 = 62;
    const HEADER_SIZE: u16 = 56;
    const EXECUTABLE: u16 = 2;
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;

    /// The error says why the file cannot be booted.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let truncated = || "the ELF file ends within its headers".to_owned();
        if bytes.get(4..6) != Some(&[Self::CLASS_64, Self::LITTLE_ENDIAN]) {
            return Err("it is not a 64-bit little-endian ELF file".to_owned());
        }
        if u16_at(bytes, 18).ok_or_else(truncated)? != Self::MACHINE_X86_64 {
            return Err("it is an ELF file for another architecture than x86-64".to_owned());
        }
        if u16_at(bytes, 16).ok_or_else(truncated)? != Self::EXECUTABLE {
            return Err("it is an ELF file that runs at no fixed address (a program, library or object file)".to_owned());
        }
        if u16_at(bytes, 54).ok_or_else(truncated)? != Self::HEADER_SIZE {
            return Err("its ELF program headers have an unknown size".to_owned());
        }
        let headers = u64_at(bytes, 32).ok_or_else(truncated)?;
        let count = u16_at(bytes, 56).ok_or_else(truncated)?;
        let mut facts = Self {
            pvh_entry: None,
            segments: Vec::new(),
        };
        for index in 0..count {
            let header = u64::from(index) * u64::from(Self::HEADER_SIZE);
            let header = headers
                .checked_add(header)
                .and_then(|at| usize::try_from(at).ok());
            let header = header
                .and_then(|at| bytes.get(at..)?.get(..56))
                .ok_or_else(truncated)?;
            facts.add_segment(bytes, header).ok_or_else(|| {
                "an ELF segment passes the end of the file or of the address space".to_owned()
            })?;
        }
        facts.check_entry(u64_at(bytes, 24).ok_or_else(truncated)?)?;
        Ok(facts)
    }

    /// Tells kernels from programs by where they start.
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
        // A Linux kernel is linked for the upper half and entered by physical address; a program has one address for both.
        if self.pvh_entry.is_none() && segment.virtual_start < UPPER_HALF {
            return Err(
                "the ELF file has no PVH note, and is not a Linux kernel either (a program?)"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The first address after the last segment.
    pub fn end(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.physical.end)
            .max()
            .unwrap_or(0)
    }

    /// Where its segments go.
    #[cfg(test)]
    pub fn segments(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments.iter().map(|segment| segment.physical.clone())
    }

    /// Parts of segments that the file does not hold: they have to read as zero.
    pub fn zeroes(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments
            .iter()
            .map(|segment| segment.physical.start + segment.in_file..segment.physical.end)
    }

    fn add_segment(&mut self, bytes: &[u8], header: &[u8]) -> Option<()> {
        let (kind, offset) = (u32_at(header, 0)?, u64_at(header, 8)?);
        let (physical, in_file, in_memory) = (
            u64_at(header, 24)?,
            u64_at(header, 32)?,
            u64_at(header, 40)?,
        );
        if kind != Self::PT_LOAD && kind != Self::PT_NOTE {
            return Some(());
        }
        let content = bytes
            .get(usize::try_from(offset).ok()?..)?
            .get(..usize::try_from(in_file).ok()?)?;
        if kind == Self::PT_NOTE {
            self.pvh_entry = self.pvh_entry.or(find_pvh_entry(content));
            return Some(());
        }
        let end = physical.checked_add(in_memory.max(in_file))?;
        self.segments.push(Segment {
            physical: physical..end,
            in_file,
            virtual_start: u64_at(header, 16)?,
        });
        Some(())
    }
}

/// Looks through a note segment: name size, descriptor size, type, then name and descriptor, each padded to four bytes.
fn find_pvh_entry(mut notes: &[u8]) -> Option<u64> {
    const PHYS32_ENTRY: u32 = 18;
    loop {
        let (name, descriptor) = (u32_at(notes, 0)?, u32_at(notes, 4)?);
        let kind = u32_at(notes, 8)?;
        let name_end = 12 + usize::try_from(name).ok()?;
        let start = name_end.next_multiple_of(4);
        let end = start + usize::try_from(descriptor).ok()?;
        if kind == PHYS32_ENTRY && notes.get(12..name_end)? == b"Xen\0" {
            return u32_at(notes.get(start..end)?, 0).map(u64::from);
        }
        notes = notes.get(end.next_multiple_of(4)..)?;
    }
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
