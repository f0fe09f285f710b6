//! Guest code as text, in the mode that its VP is in: GDB takes all of it for 64-bit code, whatever the VP decodes it as.

use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Formatter;
use iced_x86::GasFormatter;
use iced_x86::Instruction;
use std::fmt::Write as _;
use vmm_core_defs::debug_rpc::CpuMode;

/// Where code is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The linear address of the first byte.
    pub(super) linear: u64,
    /// The base of the code segment: operands of jumps are offsets from it.
    pub(super) base: u64,
    /// The linear address of the VP's next instruction.
    pub(super) pc: u64,
}

/// The bits of addresses and operands in this mode; `None` for what is not x86.
pub(super) fn bitness(mode: CpuMode) -> Option<u32> {
    match mode {
        CpuMode::Real | CpuMode::Virtual8086 | CpuMode::Protected16 | CpuMode::Compatibility16 => {
            Some(16)
        }
        CpuMode::Protected32 | CpuMode::Compatibility32 => Some(32),
        CpuMode::Long64 => Some(64),
        CpuMode::Aarch64 => None,
    }
}

/// One line for each instruction, up to `count` or the end of the bytes: `=>` marks the next one, addresses are linear, the text is GDB's default.
pub(super) fn list(bitness: u32, place: Place, bytes: &[u8], count: usize) -> String {
    let mask = match bitness {
        64 => u64::MAX,
        _ => u32::MAX.into(),
    };
    let offset = place.linear.wrapping_sub(place.base) & mask;
    let mut decoder = Decoder::with_ip(bitness, bytes, offset, DecoderOptions::NONE);
    let mut formatter = GasFormatter::new();
    let mut instruction = Instruction::default();
    let mut text = String::new();
    for _ in 0..count {
        let start = decoder.position();
        if !decoder.can_decode() {
            break;
        }
        decoder.decode_out(&mut instruction);
        let linear = place.base.wrapping_add(instruction.ip()) & mask;
        let marker = if linear == place.pc { "=>" } else { "  " };
        let mut code = String::new();
        for byte in &bytes[start..decoder.position()] {
            let _ = write!(code, "{byte:02x} ");
        }
        let mut words = String::new();
        match instruction.is_invalid() {
            true => words.push_str("(bad)"),
            false => formatter.format(&instruction, &mut words),
        }
        let _ = writeln!(text, "{marker} {linear:#x}:  {code:24} {words}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same bytes, as each mode has them.
    #[test]
    fn code_is_what_the_mode_makes_of_it() {
        let bytes = [0x66, 0xb8, 1, 2, 3, 4, 0x43, 0xeb, 0xfe];
        let place = Place {
            linear: 0xa010,
            base: 0xa000,
            pc: 0xa016,
        };
        let text = list(16, place, &bytes, 3);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].starts_with("   0xa010:  66 b8 01 02 03 04"),
            "{text}"
        );
        assert!(lines[0].ends_with("mov $0x4030201,%eax"), "{text}");
        assert!(lines[1].starts_with("=> 0xa016:  43"), "{text}");
        assert!(lines[1].ends_with("inc %bx"), "{text}");
        assert!(
            lines[2].ends_with("jmp 0x17") || lines[2].contains("0x0017"),
            "{text}"
        );
        let text = list(32, place, &bytes, 3);
        assert!(text.contains("mov $0x201,%ax"), "{text}");
        let text = list(64, place, &bytes, 9);
        assert!(text.contains("jmp"), "{text}");
        assert_eq!(list(16, place, &[], 5), "");
    }
}
