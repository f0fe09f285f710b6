//! Telling by the opcode alone whether an instruction needs a closer look before it is stepped: decoding costs as much as all the rest.

/// What is to be done about an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    /// Whatever it is, it neither stores nor loads RFLAGS.TF.
    Plain,
    /// The same, but it may write a debug register.
    DebugRegister,
    /// `syscall`, which needs to know MSRs.
    SystemCall,
    /// It may store or load RFLAGS, or switch tasks; or there are not enough bytes to tell.
    Special,
}

/// Looks at the instruction's first bytes. `long`: whether they are 64-bit code.
pub(crate) fn of(bytes: &[u8], long: bool) -> Opcode {
    let is_prefix = |byte: &u8| match byte {
        0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 => true,
        0x40..=0x4f => long,
        _ => false,
    };
    let mut bytes = bytes.iter().skip_while(|byte| is_prefix(byte));
    let (Some(opcode), next) = (bytes.next(), bytes.next()) else {
        return Opcode::Special;
    };
    match (opcode, next) {
        // pushf, popf, iret, int3, int n, into, int1, far calls, jumps and returns.
        (0x9c | 0x9d | 0xcf | 0xcc | 0xcd | 0xce | 0xf1 | 0x9a | 0xea | 0xca | 0xcb, _) => {
            Opcode::Special
        }
        (0x0f, Some(0x05)) => Opcode::SystemCall,
        (0x0f, Some(0x23)) => Opcode::DebugRegister,
        // sysret; and what is cut off.
        (0x0f, Some(0x07) | None) | (0xff, None) => Opcode::Special,
        // /3 and /5 are the far ones.
        (0xff, Some(modrm)) if matches!(modrm >> 3 & 7, 3 | 5) => Opcode::Special,
        _ => Opcode::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step_effects::Kind;
    use crate::step_effects::kind;
    use iced_x86::Decoder;
    use iced_x86::DecoderOptions;
    use vmm_core_defs::regs::X86VpState;

    /// Every one- and two-byte opcode with every ModRM byte, behind some prefixes.
    fn every_opcode() -> impl Iterator<Item = Vec<u8>> {
        let prefixes: [&[u8]; 6] = [&[], &[0x66], &[0xf3], &[0x48], &[0x66, 0x4f], &[0xf2, 0x2e]];
        let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
        prefixes.into_iter().flat_map(move |prefix| {
            maps.into_iter().flat_map(move |map| {
                (0..=0xffff_u16).map(move |code| {
                    let code = code.to_le_bytes();
                    [prefix, map, &code, &[0; 8]].concat()
                })
            })
        })
    }

    #[test]
    fn what_is_called_plain_touches_no_trap_flag() {
        let state = X86VpState {
            rflags: 1 << 11,
            ..Default::default()
        };
        for bytes in every_opcode() {
            for bits in [16, 32, 64] {
                let mut decoder = Decoder::new(bits, &bytes, DecoderOptions::NONE);
                let instruction = decoder.decode();
                let found = of(&bytes, bits == 64);
                let kind = kind::of(&state, (!instruction.is_invalid()).then_some(&instruction));
                match kind {
                    Kind::PushFlags { .. }
                    | Kind::PopFlags
                    | Kind::InterruptReturn { .. }
                    | Kind::SoftwareInterrupt { .. }
                    | Kind::FarTransfer
                    | Kind::SystemReturn { .. } => assert_eq!(found, Opcode::Special, "{bytes:x?}"),
                    Kind::SystemCall => assert_eq!(found, Opcode::SystemCall, "{bytes:x?}"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_usual_instructions_are_plain() {
        let usual: [&[u8]; 8] = [
            &[0x90],
            &[0x48, 0x89, 0xe5],
            &[0x55, 0x48],
            &[0xe8, 0, 0, 0, 0],
            &[0xff, 0xc3],
            &[0x0f, 0xa2],
            &[0xf3, 0xa4],
            &[0xc3, 0x90],
        ];
        for bytes in usual {
            assert_eq!(of(bytes, true), Opcode::Plain, "{bytes:x?}");
        }
        assert_eq!(of(&[0x48], true), Opcode::Special, "cut off");
        assert_eq!(of(&[], true), Opcode::Special);
    }
}
