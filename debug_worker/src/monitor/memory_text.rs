//! Memory and its translation as text for people.

use std::fmt::Write as _;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::memory::Translation;

/// The entries of a page walk, one line each, and the result of the walk.
pub(super) fn translation(gva: Gva, translation: &Translation) -> String {
    let mut text = String::new();
    for entry in &translation.entries {
        let _ = writeln!(
            text,
            "level {}  entry at {:#014x} = {:#018x}",
            entry.level, entry.gpa, entry.value
        );
    }
    let yes_no = |allowed| if allowed { "yes" } else { "no" };
    let _ = match translation.page_size {
        None => writeln!(
            text,
            "{gva} -> physical {} (paging is off)",
            translation.gpa
        ),
        Some(size) => writeln!(
            text,
            "{gva} -> physical {} in a page of {}; write: {}, user: {}, execute: {}",
            translation.gpa,
            size_text(size),
            yes_no(translation.writable),
            yes_no(translation.user),
            yes_no(translation.executable),
        ),
    };
    text
}

fn size_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(
            || format!("{bytes} bytes"),
            |(unit, name)| format!("{} {name}", bytes / unit),
        )
}

/// A hex dump with 16 bytes in a line. If `bytes` has fewer bytes than `wanted`, the last line says so. `read` is the
/// number of bytes that were requested from the VM.
pub(super) fn dump(address: Gpa, bytes: &[u8], read: u64, wanted: u64) -> String {
    let mut text = String::new();
    for (index, row) in bytes.chunks(16).enumerate() {
        let offset = u64::try_from(index * 16).unwrap_or(u64::MAX);
        let _ = write!(text, "{:#014x} ", address.value().wrapping_add(offset));
        for column in 0..16 {
            let gap = if column % 8 == 0 { "  " } else { " " };
            let _ = match row.get(column) {
                Some(byte) => write!(text, "{gap}{byte:02x}"),
                None => write!(text, "{gap}  "),
            };
        }
        let shown = row.iter().map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        });
        let _ = writeln!(text, "  |{}|", shown.collect::<String>());
    }
    let shown = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if shown < read {
        let _ = writeln!(
            text,
            "({shown} of {wanted} bytes; there is no memory behind them)"
        );
    } else if read < wanted {
        let next = address.value().wrapping_add(read);
        let _ = writeln!(
            text,
            "({shown} of {wanted} bytes, which is the maximum of one command; for the rest: `monitor phys x {next:#x} {}`)",
            wanted - read
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::memory::TableEntry;

    #[test]
    fn a_dump_shows_bytes_text_and_where_it_ends() {
        let text = dump(Gpa::new(0x1000), b"Hello, guest\0\xff and more", 64, 64);
        assert_eq!(
            text,
            "0x000000001000   48 65 6c 6c 6f 2c 20 67  75 65 73 74 00 ff 20 61  |Hello, guest.. a|\n\
             0x000000001010   6e 64 20 6d 6f 72 65                              |nd more|\n\
             (23 of 64 bytes; there is no memory behind them)\n"
        );
    }

    #[test]
    fn a_dump_that_is_cut_says_so_and_how_to_see_the_rest() {
        let text = dump(Gpa::new(0x1000), &[0; 16], 16, 10_000);
        assert!(
            text.ends_with(
                "(16 of 10000 bytes, which is the maximum of one command; for the rest: `monitor phys x 0x1010 9984`)\n"
            ),
            "{text}"
        );
        assert_eq!(dump(Gpa::new(0), &[0; 16], 16, 16).lines().count(), 1);
    }

    #[test]
    fn a_walk_shows_every_level() {
        let walk = Translation {
            gpa: Gpa::new(0x20_3000),
            page_size: Some(2 << 20),
            writable: true,
            user: false,
            executable: true,
            entries: vec![TableEntry {
                level: 2,
                gpa: Gpa::new(0x3008),
                value: 0x2000e3,
            }],
        };
        assert_eq!(
            translation(Gva::new(0x3000), &walk),
            "level 2  entry at 0x000000003008 = 0x00000000002000e3\n\
             0x3000 -> physical 0x203000 in a page of 2 MiB; write: yes, user: no, execute: yes\n"
        );
    }
}
