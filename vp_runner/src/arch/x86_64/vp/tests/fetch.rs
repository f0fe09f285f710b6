//! Instructions that the VP cannot fetch, and locked instructions that lose a race.

use super::*;
use crate::arch::x86_64::page_walk::format::NO_EXECUTE;
use crate::arch::x86_64::page_walk::format::PRESENT;
use crate::arch::x86_64::page_walk::format::USER;
use crate::arch::x86_64::page_walk::format::WRITABLE;
use crate::arch::x86_64::vp::tests::fake_vcpu::Scripted;
use crate::arch::x86_64::vp::tests::fake_vcpu::Told;
use crate::control::run_state::Cause;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::cr4;
use vmm_core_defs::regs::x86_64::bits::efer;
use vmm_core_defs::stop::DebugStopReason;

const HLT: u8 = 0xf4;
const PAGE_FAULT: u64 = 14;
const HANDLER: u64 = 0x3000;
const TABLES: u64 = 0xa000;
const BS: u64 = 1 << 14;

/// The mapping of the code's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Executable,
    NoExecute,
    UserPageUnderSmep,
}

/// 64-bit code in ring 0, with an interrupt gate for `#PF`. The page at [`CODE`] is mapped as `page`, every other page with all rights.
fn paged(page: Page) -> Guest {
    let mut guest = Guest::new(&[]);
    for level in 0..3 {
        let next = TABLES + 0x1000 * (level + 1);
        let entry = next | PRESENT | WRITABLE | USER;
        guest.write(TABLES + 0x1000 * level, &entry.to_le_bytes());
    }
    for number in 0..16 {
        let at = number * 0x1000;
        let bits = match page {
            _ if at != CODE => 0,
            Page::Executable => 0,
            Page::NoExecute => NO_EXECUTE,
            Page::UserPageUnderSmep => USER,
        };
        let entry = at | PRESENT | WRITABLE | bits;
        guest.write(TABLES + 0x3000 + 8 * number, &entry.to_le_bytes());
    }
    let [low, high, ..] = u16::try_from(HANDLER).unwrap().to_le_bytes();
    // A 64-bit interrupt gate (SDM volume 3, "64-Bit Mode IDT").
    let gate = [low, high, 0x08, 0, 0, 0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    guest.write(IDT + 16 * PAGE_FAULT, &gate);
    guest.write(0x4800 + 8, &[0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0]);
    let system = &mut guest.vcpu().registers.system;
    system.cr0 = cr0::PG | cr0::PE;
    system.cr3 = TABLES;
    system.cr4 = cr4::PAE | cr4::SMEP;
    system.efer = efer::LME | efer::LMA | efer::NXE;
    (system.cs.l, system.cs.db, system.cs.selector) = (1, 0, 8);
    (system.idt.base, system.idt.limit) = (IDT, 0xfff);
    (system.gdt.base, system.gdt.limit) = (0x4800, 0x1f);
    guest
}

fn stepped() -> Option<Cause> {
    Some(Cause::Debug(DebugStopReason::SingleStep { vp: VP }))
}

const PAGES: [(Page, bool); 3] = [
    (Page::Executable, true),
    (Page::NoExecute, false),
    (Page::UserPageUnderSmep, false),
];

#[test]
fn a_hlt_that_cannot_be_fetched_is_not_carried_out() {
    for (page, fetched) in PAGES {
        let mut guest = paged(page);
        guest.write(CODE, &[HLT]);
        let parked = guest.step([Scripted::Debug { vector: 1, dr6: BS }.leaves_at(HANDLER)]);
        assert_eq!(parked.cause, stepped(), "{page:?}");
        let halted = guest.vcpu().activity == VpActivity::Halted;
        assert_eq!(halted, fetched, "{page:?}");
        assert_eq!(!guest.vcpu().told.contains(&Told::Run), fetched, "{page:?}");
    }
}

#[test]
fn a_trap_waits_at_the_handler_of_a_fetch_that_faults() {
    let handler = Gva::new(HANDLER);
    for (page, fetched) in PAGES {
        let mut guest = paged(page);
        guest.step([Scripted::Debug { vector: 1, dr6: BS }.leaves_at(CODE + 1)]);
        let waits = guest.vcpu().told.iter().any(
            |told| matches!(told, Told::Program(state) if state.registers.is_trap_at(handler)),
        );
        assert_eq!(waits, !fetched, "{page:?}");
    }
}

#[test]
fn an_instruction_that_goes_on_to_a_page_without_fetch_is_cut_there() {
    for (page, bytes) in [(Page::Executable, 15), (Page::NoExecute, 5)] {
        let mut guest = paged(page);
        guest.vcpu().registers.general.rip = CODE - 5;
        let location = guest.vp.location().unwrap();
        assert_eq!(guest.vp.memory.code_at(&location).bytes().len(), bytes);
    }
}

#[test]
fn a_locked_instruction_that_loses_its_race_is_stepped_again() {
    let at = |rip| Scripted::Debug { vector: 1, dr6: BS }.leaves_at(rip);
    for (code, again) in [
        // lock inc dword [ebx]; xchg [ebx], eax; xchg ecx, ebx; jmp to itself.
        (&[0xf0, 0xff, 0x03][..], true),
        (&[0x87, 0x03], true),
        (&[0x87, 0xcb], false),
        (&[0xeb, 0xfe], false),
    ] {
        let mut guest = Guest::new(&[]);
        guest.write(CODE, code);
        let behind = CODE + code.len() as u64;
        let parked = guest.step([at(CODE), at(behind)]);
        assert_eq!(parked.cause, stepped(), "{code:x?}");
        let rip = guest.vcpu().registers.general.rip;
        assert_eq!(rip == behind, again, "{code:x?}");
    }
}
