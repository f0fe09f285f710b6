//! Finds the addresses of symbols in an ELF file.

use object::Object as _;
use object::ObjectSymbol as _;
use std::ops::Range;

/// The value of the symbol `name`.
pub(super) fn address(elf: &[u8], name: &str) -> Option<u64> {
    range(elf, name).map(|range| range.start)
}

/// The addresses that the symbol `name` covers.
pub(super) fn range(elf: &[u8], name: &str) -> Option<Range<u64>> {
    let file = object::File::parse(elf).ok()?;
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name_bytes() == Ok(name.as_bytes()))?;
    let start = symbol.address();
    Some(start..start.checked_add(symbol.size())?)
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
        let function = range(demo_guest::ELF, "do_round").expect("the guest has this function");
        assert!(function.start < function.end, "{function:x?}");
        assert_eq!(range(b"no ELF file", "do_round"), None);
    }
}
