//! The interrupt that KVM would deliver next, by the state of its interrupt controllers.
//!
//! Sources: SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)"; Intel 8259A data sheet, "Fully Nested Mode", "Automatic Rotation".
#![expect(unsafe_code, reason = "kvm_irqchip is a union selected by chip_id")]

use kvm_bindings::KVM_IRQCHIP_PIC_MASTER;
use kvm_bindings::KVM_IRQCHIP_PIC_SLAVE;
use kvm_bindings::kvm_irqchip;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_pic_state;
use kvm_ioctls::VmFd;

/// Offsets of local APIC registers.
const TPR: usize = 0x80;
const SPURIOUS: usize = 0xf0;
const ISR: usize = 0x100;
const IRR: usize = 0x200;
const LVT_LINT0: usize = 0x350;
const SPURIOUS_ENABLED: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
const LVT_MODE: u32 = 7 << 8;
const LVT_EXTINT: u32 = 7 << 8;
const APIC_BASE_ENABLED: u64 = 1 << 11;
/// The master's line to which the slave is connected.
const CASCADE: u8 = 2;

/// Master and slave. `None` if KVM has none.
pub(super) fn pics(vm: &VmFd) -> Option<(kvm_pic_state, kvm_pic_state)> {
    let pic = |chip_id| {
        let mut chip = kvm_irqchip {
            chip_id,
            ..Default::default()
        };
        vm.get_irqchip(&mut chip).ok()?;
        // SAFETY: the kernel fills in the member that `chip_id` asks for (KVM api.rst, KVM_GET_IRQCHIP); all are plain integers.
        Some(unsafe { chip.chip.pic })
    };
    Some((pic(KVM_IRQCHIP_PIC_MASTER)?, pic(KVM_IRQCHIP_PIC_SLAVE)?))
}

/// The vector of the interrupt that is delivered next, if any is deliverable. Interrupts of the PICs come first, as in KVM.
pub(super) fn next(
    lapic: &kvm_lapic_state,
    apic_base: u64,
    master: &kvm_pic_state,
    slave: &kvm_pic_state,
) -> Option<u8> {
    let through_lint0 = {
        let lint0 = register(lapic, LVT_LINT0);
        lint0 & LVT_MASKED == 0 && lint0 & LVT_MODE == LVT_EXTINT
    };
    let apic_on = apic_base & APIC_BASE_ENABLED != 0;
    let pic = (!apic_on || through_lint0).then(|| of_pics(master, slave));
    pic.flatten()
        .or_else(|| apic_on.then(|| of_lapic(lapic)).flatten())
}

fn of_pics(master: &kvm_pic_state, slave: &kvm_pic_state) -> Option<u8> {
    match line(master)? {
        // If the slave's request has gone, the slave delivers a spurious interrupt on its line 7.
        CASCADE => Some(slave.irq_base.wrapping_add(line(slave).unwrap_or(7))),
        line => Some(master.irq_base.wrapping_add(line)),
    }
}

/// The line that is raised, not masked, and of higher priority than all lines in service.
fn line(pic: &kvm_pic_state) -> Option<u8> {
    let by_priority =
        |lines: u8| (0..8).find(|n| lines >> (pic.priority_add.wrapping_add(*n) & 7) & 1 != 0);
    let raised = by_priority(pic.irr & !pic.imr)?;
    let served = by_priority(pic.isr).unwrap_or(8);
    (raised < served).then_some(pic.priority_add.wrapping_add(raised) & 7)
}

fn of_lapic(lapic: &kvm_lapic_state) -> Option<u8> {
    if register(lapic, SPURIOUS) & SPURIOUS_ENABLED == 0 {
        return None;
    }
    let raised = highest(lapic, IRR)?;
    let served = highest(lapic, ISR).unwrap_or(0) & 0xf0;
    let [task, ..] = register(lapic, TPR).to_le_bytes();
    (raised & 0xf0 > served.max(task & 0xf0)).then_some(raised)
}

/// The highest set bit in a register of 256 bits.
fn highest(lapic: &kvm_lapic_state, start: usize) -> Option<u8> {
    (0..=u8::MAX)
        .rev()
        .find(|n| register(lapic, start + usize::from(n / 32) * 0x10) >> (n % 32) & 1 != 0)
}

fn register(lapic: &kvm_lapic_state, at: usize) -> u32 {
    let byte = |n: usize| lapic.regs[at + n].to_le_bytes()[0];
    u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENABLED: u64 = APIC_BASE_ENABLED;

    fn lapic(registers: &[(usize, u32)]) -> kvm_lapic_state {
        let mut lapic = kvm_lapic_state::default();
        for (at, value) in registers {
            for (n, byte) in value.to_le_bytes().into_iter().enumerate() {
                lapic.regs[at + n] = std::ffi::c_char::from_le_bytes([byte]);
            }
        }
        lapic
    }

    fn pic(base: u8, raised: u8, masked: u8, served: u8) -> kvm_pic_state {
        kvm_pic_state {
            irq_base: base,
            irr: raised,
            imr: masked,
            isr: served,
            ..Default::default()
        }
    }

    fn of_pic(raised: u8, masked: u8, served: u8) -> Option<u8> {
        next(
            &lapic(&[]),
            0,
            &pic(0x20, raised, masked, served),
            &pic(0x28, 1 << 4, 0, 0),
        )
    }

    #[test]
    fn the_pics_give_their_highest_line_that_is_not_masked_or_behind_one_in_service() {
        assert_eq!(of_pic(0, 0, 0), None);
        assert_eq!(of_pic(0b11, 0, 0), Some(0x20));
        assert_eq!(of_pic(0b11, 1, 0), Some(0x21));
        assert_eq!(of_pic(0b11, 0, 1), None);
        assert_eq!(of_pic(0b01, 0, 0b10), Some(0x20));
        assert_eq!(of_pic(0b100, 0, 0), Some(0x2c), "the slave's");
        let rotated = kvm_pic_state {
            priority_add: 1,
            ..pic(0x20, 0b11, 0, 0)
        };
        assert_eq!(line(&rotated), Some(1));
    }

    #[test]
    fn the_pics_come_through_lint0_only() {
        let (master, slave) = (pic(0x20, 1, 0, 0), pic(0x28, 0, 0, 0));
        for (lint0, found) in [(0x700, Some(0x20)), (0x1_0700, None), (0x400, None)] {
            let lapic = lapic(&[(LVT_LINT0, lint0)]);
            assert_eq!(next(&lapic, ENABLED, &master, &slave), found, "{lint0:#x}");
        }
    }

    #[test]
    fn the_local_apic_gives_its_highest_above_what_it_serves_and_the_task_priority() {
        let none = pic(0, 0, 0, 0);
        let found = |registers: &[(usize, u32)]| next(&lapic(registers), ENABLED, &none, &none);
        let raised = [
            (SPURIOUS, 0x1ff),
            (IRR + 0x10, 1 << 4),
            (IRR + 0x70, 1 << 12),
        ];
        assert_eq!(found(&raised), Some(0xec));
        assert_eq!(found(&raised[..2]), Some(0x24));
        assert_eq!(found(&raised[1..]), None, "switched off");
        let with = |more| found(&[&raised[..2], &[more]].concat());
        assert_eq!(with((ISR + 0x10, 1)), None);
        assert_eq!(with((ISR, 1 << 31)), Some(0x24));
        assert_eq!(with((TPR, 0x20)), None);
        assert_eq!(with((TPR, 0x1f)), Some(0x24));
    }
}
