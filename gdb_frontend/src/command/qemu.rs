//! QEMU's packets for steps and physical memory, for scripts that use them (QEMU documentation, "GDB usage", nodes
//! "Changing single-stepping behaviour" and "Examining physical memory").

use super::Command;
use super::CommandError;
use super::syntax;
use crate::target::StepInterrupts;

/// The supported flags. Without `ENABLE` a step would be a continue. `NOTIMER` does not exist on KVM; QEMU refuses it
/// there as well.
pub(crate) const STEP_BITS: &str = "ENABLE=1,NOIRQ=2";

const ENABLE: u64 = 1;
const NOIRQ: u64 = 2;
const SYNTAX: &str = "Qqemu.sstep=FLAGS, in hex: 3 to hold interrupts back while stepping, 1 to take them; nothing else is supported";

/// Parses the flags of `Qqemu.sstep=HEX`.
pub(super) fn set_step(digits: &[u8]) -> Result<Command<'_>, CommandError> {
    let digits = digits.strip_prefix(b"0x").unwrap_or(digits);
    const HOLD: u64 = ENABLE | NOIRQ;
    let interrupts = match syntax::number(digits) {
        Some(HOLD) => StepInterrupts::Held,
        Some(ENABLE) => StepInterrupts::Taken,
        _ => return Err(CommandError::Syntax(SYNTAX)),
    };
    Ok(Command::SetStepInterrupts(interrupts))
}

/// The reply to `qqemu.Supported`.
pub(crate) const FEATURES: &str = "sstepbits;sstep;PhyMemMode";

/// `Qqemu.PhyMemMode:0` or `Qqemu.PhyMemMode:1`.
pub(super) fn set_physical_memory(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    match arguments {
        b":0" => Ok(Command::SetPhysicalMemory(false)),
        b":1" => Ok(Command::SetPhysicalMemory(true)),
        _ => Err(CommandError::Syntax(
            "Qqemu.PhyMemMode:1 for physical addresses in m, M, x and X, Qqemu.PhyMemMode:0 for virtual ones",
        )),
    }
}

/// The flags of a setting.
pub(crate) fn step_flags(interrupts: StepInterrupts) -> u64 {
    match interrupts {
        StepInterrupts::Held => ENABLE | NOIRQ,
        StepInterrupts::Taken => ENABLE,
    }
}
