//! `xp`: physical memory in the format of QEMU's monitor, for scripts that read page tables with this command.

use std::fmt::Write as _;
use vmm_core_defs::addr::Gpa;

/// The maximum length of an answer, in bytes. Scripts read page tables and whole pages; `dump` and the protocol's
/// packets read more.
const MAX_BYTES: u64 = 256 << 10;

/// The format of an `xp` command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    count: usize,
    base: Base,
    /// The size of an item in bytes: 1, 2, 4 or 8.
    size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Hexadecimal,
    Decimal,
    Unsigned,
    Octal,
    Character,
}

impl Default for Format {
    /// One 4-byte word in hexadecimal, as in QEMU.
    fn default() -> Self {
        Self {
            count: 1,
            base: Base::Hexadecimal,
            size: 4,
        }
    }
}

impl Format {
    /// The number of bytes to show.
    pub(super) fn bytes(self) -> usize {
        self.count * self.size
    }

    /// One line for every 16 bytes, or for every 8 bytes if the items are bytes, up to the last complete item.
    pub(super) fn text(self, address: Gpa, bytes: &[u8]) -> String {
        let in_line = if self.size == 1 { 8 } else { 16 };
        let mut text = String::new();
        let whole = bytes.len() - bytes.len() % self.size;
        for (line, row) in bytes[..whole].chunks(in_line).enumerate() {
            let offset = u64::try_from(line * in_line).unwrap_or(u64::MAX);
            let _ = write!(text, "{:016x}:", address.value().wrapping_add(offset));
            for item in row.chunks_exact(self.size) {
                let mut value = [0; 8];
                value[..self.size].copy_from_slice(item);
                self.item(&mut text, u64::from_le_bytes(value));
            }
            text.push('\n');
        }
        if whole < self.bytes() {
            let end = u64::try_from(whole).unwrap_or(u64::MAX);
            let _ = writeln!(
                text,
                "{:016x}: Cannot access memory",
                address.value().wrapping_add(end)
            );
        }
        text
    }

    fn item(self, text: &mut String, value: u64) {
        let (size, unused) = (self.size, 64 - 8 * self.size);
        let _ = match self.base {
            Base::Hexadecimal => write!(text, " 0x{value:0width$x}", width = 2 * size),
            Base::Decimal => write!(text, " {}", value.cast_signed() << unused >> unused),
            Base::Unsigned => write!(text, " {value}"),
            Base::Octal => write!(text, " 0{value:o}"),
            Base::Character => match u8::try_from(value) {
                Ok(byte @ b' '..=b'~') => write!(text, " '{}'", char::from(byte)),
                _ => write!(text, " '\\x{value:02x}'"),
            },
        };
    }
}

/// Parses a count, a base and a size. Each of them is optional.
pub(super) fn format(text: &str) -> Result<Format, String> {
    let letters = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - letters.len()];
    let mut format = Format::default();
    for letter in letters.chars() {
        match letter {
            'x' => format.base = Base::Hexadecimal,
            'd' => format.base = Base::Decimal,
            'u' => format.base = Base::Unsigned,
            'o' => format.base = Base::Octal,
            'c' => (format.base, format.size) = (Base::Character, 1),
            'b' => format.size = 1,
            'h' => format.size = 2,
            'w' => format.size = 4,
            'g' => format.size = 8,
            'i' => {
                return Err(
                    "this `xp` shows no instructions; use `monitor disas ADDR`, which takes a virtual address\n".to_owned(),
                );
            }
            _ => return Err(not_understood(text)),
        }
    }
    if !digits.is_empty() {
        let most = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX) / format.size;
        let count = digits.parse().ok().filter(|count| *count <= most);
        format.count = count.ok_or_else(|| {
            format!("`{digits}` is too many for one `xp`, which shows at most {MAX_BYTES} bytes; ask for {most} at a time\n")
        })?;
    }
    Ok(format)
}

fn not_understood(text: &str) -> String {
    let text: String = text.chars().take(40).collect();
    format!(
        "`{text}` is no format; write a count, one of x d u o c, and one of b h w g for 1, 2, 4 or 8 bytes: `monitor xp /4gx 0x1000`\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, bytes: &[u8]) -> String {
        format(text).unwrap().text(Gpa::new(0x1000), bytes)
    }

    #[test]
    fn where_memory_ends_is_said_in_the_words_that_scripts_look_for() {
        assert_eq!(
            shown("4gx", &[0; 11]),
            "0000000000001000: 0x0000000000000000\n0000000000001008: Cannot access memory\n"
        );
    }

    /// The formats that public scripts parse: they split at `:` and at spaces, and parse each item with `int(item,
    /// 16)`.
    #[test]
    fn words_have_the_shape_that_scripts_take_apart() {
        let bytes: Vec<u8> = (0..20).collect();
        assert_eq!(
            shown("gx", &bytes[..8]),
            "0000000000001000: 0x0706050403020100\n"
        );
        assert_eq!(
            shown("20xb", &bytes),
            "0000000000001000: 0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07\n\
             0000000000001008: 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f\n\
             0000000000001010: 0x10 0x11 0x12 0x13\n"
        );
        assert_eq!(
            shown("5wx", &bytes),
            "0000000000001000: 0x03020100 0x07060504 0x0b0a0908 0x0f0e0d0c\n\
             0000000000001010: 0x13121110\n"
        );
        assert_eq!(shown("hd", &[0xfe, 0xff]), "0000000000001000: -2\n");
        assert_eq!(shown("2c", b"A\0"), "0000000000001000: 'A' '\\x00'\n");
        assert_eq!(shown("ob", &[8]), "0000000000001000: 010\n");
    }

    #[test]
    fn a_format_is_understood_in_any_order_or_answered_with_one() {
        assert_eq!(format("10gx"), format("10xg"));
        assert_eq!(format("4gx").unwrap().bytes(), 32);
        assert_eq!(format("").unwrap().bytes(), 4);
        for many in ["32769gx", "99999999999999999999x"] {
            assert!(format(many).unwrap_err().contains("at a time"), "{many}");
        }
        for bad in ["4z", "x4"] {
            assert!(format(bad).unwrap_err().contains("/4gx"), "{bad}");
        }
        assert!(format("4i").unwrap_err().contains("monitor disas"));
    }
}
