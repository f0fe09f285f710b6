//! Conversion between KVM's register structures and the register file. Pure, so it serves both ioctls and the `kvm_run` page (`KVM_CAP_SYNC_REGS`).

use kvm_bindings::kvm_dtable;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::regs::x86_64::SegmentRegister;
use vmm_core_defs::regs::x86_64::TableRegister;

/// Copies general registers, RIP and RFLAGS into the register file.
pub fn read_general(regs: &kvm_regs, state: &mut X86VpState) {
    state.gp = gp_values(regs);
    state.rip = regs.rip;
    state.rflags = regs.rflags;
}

/// The general registers in the order of [`Gp`], which is not that of the structure.
const fn gp_values(regs: &kvm_regs) -> [u64; 16] {
    [
        regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8,
        regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ]
}

/// A general register.
pub(crate) const fn gp_value(regs: &kvm_regs, gp: Gp) -> u64 {
    gp_values(regs)[gp as usize]
}

/// Copies the registers in which `new` differs from `old` into `regs`. Returns whether any differed.
pub fn apply_general(regs: &mut kvm_regs, old: &X86VpState, new: &X86VpState) -> bool {
    let mut changed = false;
    let mut set = |field: &mut u64, old: u64, new: u64| {
        if old != new {
            *field = new;
            changed = true;
        }
    };
    for ((field, old), new) in gp_fields(regs).into_iter().zip(old.gp).zip(new.gp) {
        set(field, old, new);
    }
    set(&mut regs.rip, old.rip, new.rip);
    set(&mut regs.rflags, old.rflags, new.rflags);
    changed
}

/// The structure with these general registers, which are in encoding order.
pub(crate) fn general(gp: [u64; 16], rip: u64, rflags: u64) -> kvm_regs {
    let mut regs = kvm_regs {
        rip,
        rflags,
        ..Default::default()
    };
    for (field, value) in gp_fields(&mut regs).into_iter().zip(gp) {
        *field = value;
    }
    regs
}

/// The general registers of the structure, in the order of [`Gp`].
fn gp_fields(regs: &mut kvm_regs) -> [&mut u64; 16] {
    [
        &mut regs.rax,
        &mut regs.rcx,
        &mut regs.rdx,
        &mut regs.rbx,
        &mut regs.rsp,
        &mut regs.rbp,
        &mut regs.rsi,
        &mut regs.rdi,
        &mut regs.r8,
        &mut regs.r9,
        &mut regs.r10,
        &mut regs.r11,
        &mut regs.r12,
        &mut regs.r13,
        &mut regs.r14,
        &mut regs.r15,
    ]
}

/// Copies segments, descriptor tables, control registers, EFER and APIC base into the register file.
pub fn read_system(sregs: &kvm_sregs, state: &mut X86VpState) {
    state.cr0 = sregs.cr0;
    state.cr2 = sregs.cr2;
    state.cr3 = sregs.cr3;
    state.cr4 = sregs.cr4;
    state.cr8 = sregs.cr8;
    state.efer = sregs.efer;
    state.apic_base = sregs.apic_base;
    state.es = segment(&sregs.es);
    state.cs = segment(&sregs.cs);
    state.ss = segment(&sregs.ss);
    state.ds = segment(&sregs.ds);
    state.fs = segment(&sregs.fs);
    state.gs = segment(&sregs.gs);
    state.tr = segment(&sregs.tr);
    state.ldtr = segment(&sregs.ldt);
    state.gdtr = table(&sregs.gdt);
    state.idtr = table(&sregs.idt);
}

/// Copies the registers in which `new` differs from `old` into `sregs`. Returns whether any differed.
///
/// All other fields stay, especially `interrupt_bitmap`, the interrupt that waits for its delivery.
pub fn apply_system(sregs: &mut kvm_sregs, old: &X86VpState, new: &X86VpState) -> bool {
    let mut changed = false;
    for (field, old, new) in [
        (&mut sregs.cr0, old.cr0, new.cr0),
        (&mut sregs.cr2, old.cr2, new.cr2),
        (&mut sregs.cr3, old.cr3, new.cr3),
        (&mut sregs.cr4, old.cr4, new.cr4),
        (&mut sregs.cr8, old.cr8, new.cr8),
        (&mut sregs.efer, old.efer, new.efer),
        (&mut sregs.apic_base, old.apic_base, new.apic_base),
    ] {
        if old != new {
            *field = new;
            changed = true;
        }
    }
    for (field, old, new) in [
        (&mut sregs.es, &old.es, &new.es),
        (&mut sregs.cs, &old.cs, &new.cs),
        (&mut sregs.ss, &old.ss, &new.ss),
        (&mut sregs.ds, &old.ds, &new.ds),
        (&mut sregs.fs, &old.fs, &new.fs),
        (&mut sregs.gs, &old.gs, &new.gs),
        (&mut sregs.tr, &old.tr, &new.tr),
        (&mut sregs.ldt, &old.ldtr, &new.ldtr),
    ] {
        if old != new {
            *field = kvm_segment_of(new);
            changed = true;
        }
    }
    for (field, old, new) in [
        (&mut sregs.gdt, &old.gdtr, &new.gdtr),
        (&mut sregs.idt, &old.idtr, &new.idtr),
    ] {
        if old != new {
            field.base = new.base;
            field.limit = new.limit;
            changed = true;
        }
    }
    changed
}

fn table(table: &kvm_dtable) -> TableRegister {
    TableRegister {
        base: table.base,
        limit: table.limit,
    }
}

/// The layout is VMX's (SDM volume 3, table "Format of Access Rights").
fn segment(s: &kvm_segment) -> SegmentRegister {
    let attributes = u32::from(s.type_ & 0xf)
        | u32::from(s.s & 1) << 4
        | u32::from(s.dpl & 3) << 5
        | u32::from(s.present & 1) << 7
        | u32::from(s.avl & 1) << 12
        | u32::from(s.l & 1) << 13
        | u32::from(s.db & 1) << 14
        | u32::from(s.g & 1) << 15
        | u32::from(s.unusable & 1) << 16;
    SegmentRegister {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        attributes,
    }
}

fn kvm_segment_of(s: &SegmentRegister) -> kvm_segment {
    let bits = |at: u32, width: u32| {
        let value = s.attributes >> at & ((1 << width) - 1);
        u8::try_from(value).expect("a field of at most 4 bits")
    };
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: bits(0, 4),
        s: bits(4, 1),
        dpl: bits(5, 2),
        present: bits(7, 1),
        avl: bits(12, 1),
        l: bits(13, 1),
        db: bits(14, 1),
        g: bits(15, 1),
        unusable: bits(16, 1),
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::regs::x86_64::Gp;

    #[test]
    fn general_registers_go_by_name_and_not_by_position() {
        let regs = kvm_regs {
            rbx: 3,
            rsi: 6,
            ..Default::default()
        };
        let mut state = X86VpState::default();
        read_general(&regs, &mut state);
        assert_eq!(state.gp[Gp::Rbx as usize], 3);
        assert_eq!(state.gp[Gp::Rsi as usize], 6);
        let old = state.clone();
        state.gp[Gp::Rsp as usize] = 4;
        let mut written = regs;
        assert!(apply_general(&mut written, &old, &state));
        assert_eq!(written, kvm_regs { rsp: 4, ..regs });
    }

    #[test]
    fn a_system_write_keeps_the_interrupt_that_waits() {
        let mut sregs = kvm_sregs::default();
        sregs.interrupt_bitmap[0] = 1 << 32;
        let old = X86VpState::default();
        let new = X86VpState {
            cr2: 5,
            ..Default::default()
        };
        assert!(!apply_system(&mut sregs, &old, &old));
        assert!(apply_system(&mut sregs, &old, &new));
        assert_eq!((sregs.cr2, sregs.interrupt_bitmap[0]), (5, 1 << 32));
    }

    #[test]
    fn each_attribute_bit_survives() {
        for bit in [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 16] {
            let one = SegmentRegister {
                attributes: 1 << bit,
                ..Default::default()
            };
            assert_eq!(segment(&kvm_segment_of(&one)), one, "bit {bit}");
        }
    }
}
