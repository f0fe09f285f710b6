//! Addresses of an ELF file's symbols (System V ABI, "Symbol Table"), for 64-bit little-endian files only.

use std::ops::Range;

const SECTION_SYMBOLS: u32 = 2;

/// The value of the symbol `name`.
pub fn address(elf: &[u8], name: &str) -> Option<u64> {
    range(elf, name).map(|range| range.start)
}

/// The addresses that the symbol `name` covers.
pub fn range(elf: &[u8], name: &str) -> Option<Range<u64>> {
    let sections = usize_at(elf, 40)?;
    let size = usize::from(u16_at(elf, 58)?);
    let count = usize::from(u16_at(elf, 60)?);
    let section = |index: usize| elf.get(sections + index * size..);
    let symbols = (0..count)
        .filter_map(section)
        .find(|header| u32_at(header, 4) == Some(SECTION_SYMBOLS))?;
    let names = section(usize::try_from(u32_at(symbols, 40)?).ok()?)?;
    let names = elf.get(usize_at(names, 24)?..)?;
    let table = elf.get(usize_at(symbols, 24)?..)?;
    let table = table.get(..usize_at(symbols, 32)?)?;
    table.chunks_exact(24).find_map(|symbol| {
        let text = names.get(usize::try_from(u32_at(symbol, 0)?).ok()?..)?;
        let matches = text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0);
        let start = u64_at(symbol, 8).filter(|_| matches)?;
        Some(start..start.checked_add(u64_at(symbol, 16)?)?)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64_at(bytes, at)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_of_the_demo_guest_are_found() {
        let found = address(demo_guest::ELF, "do_round").expect("the guest has this function");
        assert!(found >= 0x10_0000, "{found:x}");
        assert_ne!(address(demo_guest::ELF, "is_prime"), Some(found));
        assert_eq!(address(demo_guest::ELF, "do_roun"), None);
    }
}
