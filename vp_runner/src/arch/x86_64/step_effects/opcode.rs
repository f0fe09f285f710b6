//! PauseNotice by the opcode alone whether an instruction needs a closer look before it is stepped: decoding costs as much as all the rest.

/// What is to be done about an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    /// Whatever it is, it neither stores nor loads RFLAGS.TF.
    Plain,
    /// The same, and it raises no exception either, provided it can be fetched: 64-bit code on general registers alone, or a jump by so many bytes.
    Faultless,
    /// The same, but it may write a debug register.
    DebugRegister,
    /// `hlt`, which neither stores nor loads RFLAGS.TF.
    Halt,
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
    let prefixes = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    let (prefixes, bytes) = bytes.split_at(prefixes);
    let (Some(opcode), next) = (bytes.first(), bytes.get(1)) else {
        return Opcode::Special;
    };
    match (opcode, next) {
        // pushf, popf, iret, int3, int n, into, int1, far calls, jumps and returns.
        (0x9c | 0x9d | 0xcf | 0xcc | 0xcd | 0xce | 0xf1 | 0x9a | 0xea | 0xca | 0xcb, _) => {
            Opcode::Special
        }
        (0xf4, _) if prefixes.is_empty() => Opcode::Halt,
        (0x0f, Some(0x05)) => Opcode::SystemCall,
        (0x0f, Some(0x23)) => Opcode::DebugRegister,
        // sysret; and what is cut off.
        (0x0f, Some(0x07) | None) | (0xff, None) => Opcode::Special,
        // /3 and /5 are the far ones.
        (0xff, Some(modrm)) if matches!(modrm >> 3 & 7, 3 | 5) => Opcode::Special,
        _ if long && is_faultless(prefixes, bytes) => Opcode::Faultless,
        _ => Opcode::Plain,
    }
}

/// Opcodes and prefixes as of SDM volume 2, "Opcode Map". Only what programs are mostly made of is looked for.
fn is_faultless(prefixes: &[u8], bytes: &[u8]) -> bool {
    let wide = match prefixes {
        [] | [0x40..=0x4f] => false,
        [0x66] | [0x66, 0x40..=0x4f] => true,
        // lock; those that make another instruction of it; segments.
        _ => return false,
    };
    // What ModRM.reg is, where ModRM stands for a register and not for memory.
    let register = |modrm: &u8| (*modrm >= 0xc0).then_some(*modrm >> 3 & 7);
    match bytes {
        // Jumps. One of 16 bits would cut RIP short.
        [0x70..=0x7f | 0xe0..=0xe3 | 0xe9 | 0xeb, ..] | [0x0f, 0x80..=0x8f, ..] => !wide,
        // cmov, setcc, imul, movzx, movsx.
        [
            0x0f,
            0x40..=0x4f | 0x90..=0x9f | 0xaf | 0xb6 | 0xb7 | 0xbe | 0xbf,
            modrm,
            ..,
        ] => register(modrm).is_some(),
        // add, or, adc, sbb, and, sub, xor, cmp.
        [opcode @ 0x00..=0x3f, modrm, ..] if opcode & 7 < 4 => register(modrm).is_some(),
        [opcode @ 0x00..=0x3f, ..] => matches!(opcode & 7, 4 | 5),
        // movsxd, imul, the group of add, test, xchg, mov, shifts.
        [
            0x63 | 0x69 | 0x6b | 0x80 | 0x81 | 0x83..=0x8b | 0xc0 | 0xc1 | 0xd0..=0xd3,
            modrm,
            ..,
        ] => register(modrm).is_some(),
        // lea.
        [0x8d, modrm, ..] => register(modrm).is_none(),
        // xchg, nop, cbw, cwd, test, mov, flags.
        [
            0x90..=0x99 | 0xa8 | 0xa9 | 0xb0..=0xbf | 0xf5 | 0xf8 | 0xf9 | 0xfc | 0xfd,
            ..,
        ] => true,
        // mov; test, not, neg, mul, imul, but not div and idiv; inc and dec.
        [0xc6 | 0xc7, modrm, ..] => register(modrm) == Some(0),
        [0xf6 | 0xf7, modrm, ..] => register(modrm).is_some_and(|reg| reg < 6),
        [0xfe | 0xff, modrm, ..] => register(modrm).is_some_and(|reg| reg < 2),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::step_effects::Kind;
    use crate::arch::x86_64::step_effects::kind;
    use iced_x86::CpuidFeature;
    use iced_x86::Decoder;
    use iced_x86::DecoderOptions;
    use iced_x86::FlowControl;
    use iced_x86::InstructionInfoFactory;
    use iced_x86::Mnemonic;
    use iced_x86::OpKind;
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
                if found == Opcode::Faultless {
                    assert_eq!(kind, Kind::Ordinary, "{bytes:x?}");
                }
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
    fn what_is_called_faultless_touches_no_memory_and_cannot_be_refused() {
        let mut factory = InstructionInfoFactory::new();
        let mut found = 0;
        for bytes in every_opcode() {
            if of(&bytes, true) != Opcode::Faultless {
                continue;
            }
            found += 1;
            assert_ne!(of(&bytes, false), Opcode::Faultless, "{bytes:x?}");
            let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
            let instruction = decoder.decode();
            let info = factory.info(&instruction);
            let mnemonic = instruction.mnemonic();
            let everywhere = |feature: &CpuidFeature| {
                matches!(
                    feature,
                    CpuidFeature::INTEL8086
                        | CpuidFeature::INTEL186
                        | CpuidFeature::INTEL286
                        | CpuidFeature::INTEL386
                        | CpuidFeature::X64
                        | CpuidFeature::CMOV
                )
            };
            let goes_on = match instruction.flow_control() {
                FlowControl::Next => true,
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                    instruction.op0_kind() == OpKind::NearBranch64 && bytes[0] != 0x66
                }
                _ => false,
            };
            assert!(!instruction.is_invalid(), "{bytes:x?}");
            assert!(
                mnemonic == Mnemonic::Lea || info.used_memory().is_empty(),
                "{bytes:x?}: {mnemonic:?}"
            );
            assert!(
                !matches!(mnemonic, Mnemonic::Div | Mnemonic::Idiv),
                "{bytes:x?}"
            );
            assert!(!instruction.is_privileged(), "{bytes:x?}: {mnemonic:?}");
            assert!(!instruction.has_lock_prefix(), "{bytes:x?}: {mnemonic:?}");
            assert!(goes_on, "{bytes:x?}: {mnemonic:?}");
            assert!(
                instruction.cpuid_features().iter().all(everywhere),
                "{bytes:x?}: {mnemonic:?}"
            );
        }
        assert!(found > 10_000, "{found}");
    }

    #[test]
    fn the_usual_instructions_are_plain() {
        let faultless: [&[u8]; 7] = [
            &[0x90],
            &[0x48, 0x89, 0xe5],
            &[0x83, 0xff, 0x01],
            &[0x76, 0x26],
            &[0x0f, 0xaf, 0xc1],
            &[0x48, 0x8d, 0x44, 0x24],
            &[0x66, 0x90],
        ];
        for bytes in faultless {
            assert_eq!(of(bytes, true), Opcode::Faultless, "{bytes:x?}");
        }
        let usual: [&[u8]; 8] = [
            &[0x48, 0x89, 0x45, 0xf8],
            &[0xf7, 0xf1],
            &[0x55, 0x48],
            &[0xe8, 0, 0, 0, 0],
            &[0xff, 0xe3],
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
