//! Registers as a table for people.

use super::bit_names;
use std::fmt::Write as _;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::regs::Aarch64VpState;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;

/// The registers that determine the VP's mode and its address translation.
pub(super) fn table(vp: VpIndex, state: &DebuggerVpState) -> String {
    match state {
        DebuggerVpState::X86_64(state) => x86(vp, state),
        DebuggerVpState::Aarch64(state) => aarch64(vp, state),
    }
}

fn x86(vp: VpIndex, state: &X86VpState) -> String {
    let mut text = format!("VP {vp}\n");
    let rsp = state.gp[Gp::Rsp as usize];
    let _ = writeln!(
        text,
        "rip  {:#018x}  rsp  {rsp:#018x}  rflags {:#x}",
        state.rip, state.rflags
    );
    let _ = writeln!(
        text,
        "cr0  {:#018x}  cr2  {:#018x}  cr3  {:#018x}",
        state.cr0, state.cr2, state.cr3
    );
    let _ = writeln!(
        text,
        "cr4  {:#018x}  cr8  {:#018x}  efer {:#018x}",
        state.cr4, state.cr8, state.efer
    );
    for (name, bits, value) in [
        ("cr0", bit_names::CR0, state.cr0),
        ("cr4", bit_names::CR4, state.cr4),
        ("efer", bit_names::EFER, state.efer),
    ] {
        let _ = writeln!(text, "{name:<5}{}", bit_names::set(bits, value));
    }
    if let Some(xcr0) = state.xcr0 {
        let _ = writeln!(text, "xcr0 {xcr0:#018x}");
    }
    let _ = writeln!(
        text,
        "kernel_gs_base {:#018x}  apic_base {:#018x}",
        state.kernel_gs_base, state.apic_base
    );
    let _ = writeln!(
        text,
        "       selector  base                limit       attributes"
    );
    for (name, segment) in [
        ("cs", &state.cs),
        ("ss", &state.ss),
        ("ds", &state.ds),
        ("es", &state.es),
        ("fs", &state.fs),
        ("gs", &state.gs),
        ("tr", &state.tr),
        ("ldtr", &state.ldtr),
    ] {
        let _ = writeln!(
            text,
            "{name:<5}  {:#06x}    {:#018x}  {:#010x}  {:#07x}",
            segment.selector, segment.base, segment.limit, segment.attributes
        );
    }
    for (name, table) in [("gdtr", &state.gdtr), ("idtr", &state.idtr)] {
        let _ = writeln!(
            text,
            "{name:<5}            {:#018x}  {:#06x}",
            table.base, table.limit
        );
    }
    let debug = &state.debug;
    for (index, address) in debug.db.iter().enumerate() {
        let _ = write!(text, "dr{index} {address:#x}  ");
    }
    let _ = writeln!(
        text,
        "dr6 {:#x}  dr7 {:#x} (the guest's own)",
        debug.dr6, debug.dr7
    );
    text
}

fn aarch64(vp: VpIndex, state: &Aarch64VpState) -> String {
    let Aarch64VpState {
        pc,
        cpsr,
        sp_el0,
        sp_el1,
        sctlr_el1,
        tcr_el1,
        ttbr0_el1,
        ttbr1_el1,
        ..
    } = state;
    format!(
        "VP {vp}\npc        {pc:#018x}  cpsr      {cpsr:#x}\nsp_el0    {sp_el0:#018x}  sp_el1    {sp_el1:#018x}\n\
         sctlr_el1 {sctlr_el1:#018x}  tcr_el1   {tcr_el1:#018x}\nttbr0_el1 {ttbr0_el1:#018x}  ttbr1_el1 {ttbr1_el1:#018x}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::regs::x86_64::SegmentRegister;

    #[test]
    fn every_segment_has_a_line_of_its_own() {
        let ldtr = SegmentRegister {
            selector: 0x28,
            base: 0xfee0,
            limit: 0xffff,
            attributes: 0x82,
        };
        let state = X86VpState {
            rip: 0xfff0,
            ldtr,
            ..Default::default()
        };
        let text = table(VpIndex::new(3), &DebuggerVpState::X86_64(state));
        assert!(text.starts_with("VP 3\nrip  0x000000000000fff0"), "{text}");
        assert!(
            text.contains("\nldtr   0x0028    0x000000000000fee0  0x0000ffff  0x00082\n"),
            "{text}"
        );
        assert!(!text.contains("xcr0"), "absent, not zero: {text}");
    }
}
