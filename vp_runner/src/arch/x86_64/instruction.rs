//! Decoding the instruction a VP is about to execute.

use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Instruction;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;

/// Decodes the instruction at RIP, which begins with `bytes`. `None` if there are too few bytes, or if they are no instruction in this mode.
pub(crate) fn decode(mode: CpuMode, rip: u64, bytes: &[u8]) -> Option<Instruction> {
    let bits = match mode {
        CpuMode::Real | CpuMode::Virtual8086 | CpuMode::Protected16 | CpuMode::Compatibility16 => {
            16
        }
        CpuMode::Protected32 | CpuMode::Compatibility32 => 32,
        CpuMode::Long64 => 64,
        CpuMode::Aarch64 => return None,
    };
    let bytes = &bytes[..bytes.len().min(MAX_INSTRUCTION_LEN)];
    let instruction = Decoder::with_ip(bits, bytes, rip, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}
