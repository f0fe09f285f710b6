//! Guest code as text, decoded in the mode of its VP. GDB decodes all code as 64-bit code.

use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Formatter;
use iced_x86::GasFormatter;
use iced_x86::Instruction;
use std::fmt::Write as _;
use vmm_core_defs::debug_rpc::CpuMode;

/// The location of the code to decode.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodeLocation {
    /// The linear address of the first byte.
    pub(super) linear: u64,
    /// The base of the code segment. Operands of jumps are offsets from it.
    pub(super) base: u64,
    /// The linear address of the VP's next instruction.
    pub(super) pc: u64,
}

/// The size of addresses and operands in bits in this mode. `None` if the mode is not an x86 mode.
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

/// One line for each instruction, up to `count` lines or the end of the bytes. `=>` marks the VP's next instruction.
/// Addresses are linear. The syntax is AT&T, GDB's default.
pub(super) fn list(bitness: u32, location: CodeLocation, bytes: &[u8], count: usize) -> String {
    let mask = match bitness {
        64 => u64::MAX,
        _ => u32::MAX.into(),
    };
    let offset = location.linear.wrapping_sub(location.base) & mask;
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
        let linear = location.base.wrapping_add(instruction.ip()) & mask;
        let marker = if linear == location.pc { "=>" } else { "  " };
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

    /// The same bytes, decoded in each mode.
    #[test]
    fn code_is_what_the_mode_makes_of_it() {
        let bytes = [0x66, 0xb8, 1, 2, 3, 4, 0x43, 0xeb, 0xfe];
        let location = CodeLocation {
            linear: 0xa010,
            base: 0xa000,
            pc: 0xa016,
        };
        let text = list(16, location, &bytes, 3);
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
        let text = list(32, location, &bytes, 3);
        assert!(text.contains("mov $0x201,%ax"), "{text}");
        let text = list(64, location, &bytes, 9);
        assert!(text.contains("jmp"), "{text}");
        assert_eq!(list(16, location, &[], 5), "");
    }
}
