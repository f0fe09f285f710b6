//! Compares the walk with `KVM_TRANSLATE`, on random tables in a real VM.
//!
//! KVM's own walk differs from the manuals and from our walk in these points, so the tables and addresses here avoid them:
//! - KVM ignores the address bits above those that it translates, so it translates non-canonical addresses. Without paging it returns any address unchanged.
//! - KVM treats bits 17-20 of a 4 MiB entry as reserved, because it supports PSE-36 only up to 36 bits, whatever MAXPHYADDR is.
//! - If the guest's CPUID names AMD, KVM treats bit 8 of the upper levels as reserved, as AMD does and Intel does not.
//! - The PAE root entries are those of the last `KVM_SET_SREGS`, and one reserved bit makes all four invalid.
//!
//! KVM also sets accessed bits in the tables, which changes no translation, and always reports a writable page, so other tests check permissions.

use super::*;
use crate::kvm::x86_64::RegisterFile;
use crate::kvm::x86_64::ScratchVm;
use crate::kvm::x86_64::StartIn;
use crate::kvm::x86_64::kvm_for_test;
use crate::memory::slots::MemorySlots;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

const RAM: usize = 4 << 20;
const TABLES_PER_LEVEL: u64 = 4;
const ROUNDS: usize = 8;
const ADDRESSES: usize = 1000;

/// The addresses of the tables of each level. No two addresses differ in one bit that is flipped: KVM would set accessed bits in a PAE root, which has none.
const fn tables(level: u8) -> u64 {
    0x1_0000 << level
}

/// SplitMix64. A fixed sequence is enough, and repeats a failure.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A random entry, which is usually present and legal.
fn entry(random: &mut Random, mode: PagingMode, level: u8, paging: &PagingState) -> u64 {
    let pae_root = mode == PagingMode::Pae && level == 3;
    let large_page = level > 1 && !pae_root && random.one_in(4);
    let target = if level == 1 || large_page {
        random.next() & ((1 << paging.limits.physical_bits()) - 1) & !0xfff
    } else {
        tables(level - 1) + random.below(TABLES_PER_LEVEL) * 0x1000
    };
    let mut entry = target | P;
    if pae_root {
        return if random.one_in(5) { entry & !P } else { entry };
    }
    // Writable, user, cache control, accessed, dirty, global, available: these bits do not change the translation.
    entry |= random.next() & 0b1110_0111_1110;
    if large_page {
        // The bits below a legal frame are zero, except the PAT bit.
        let low = match (mode, level) {
            (PagingMode::Bits32, _) => 0x3f_e000,
            (_, 2) => 0x1f_e000,
            _ => 0x3fff_e000,
        };
        entry = (entry & !low) | PS;
    }
    if mode == PagingMode::Bits32 {
        entry &= 0xffff_ffff;
    } else if paging.efer & NXE != 0 && random.one_in(4) {
        entry |= NX;
    }
    if random.one_in(8) {
        entry ^= 1 << random.below(if mode == PagingMode::Bits32 { 32 } else { 64 });
    }
    if random.one_in(16) {
        entry &= !P;
    }
    if mode == PagingMode::Bits32 && level == 2 && entry & PS != 0 {
        entry &= !0x1e_0000;
    }
    if level >= 3 {
        entry &= !(1 << 8);
    }
    entry
}

fn fill(random: &mut Random, scratch: &ScratchVm, paging: &PagingState) {
    let mode = PagingMode::new(paging);
    for level in 1..=mode.levels() {
        for table in 0..TABLES_PER_LEVEL {
            for slot in 0..0x1000 / mode.entry_bytes() {
                let at = tables(level) + table * 0x1000;
                let at = GuestAddress(at + slot * mode.entry_bytes());
                let value = entry(random, mode, level, paging);
                if mode == PagingMode::Bits32 {
                    let value = u32::try_from(value).unwrap();
                    scratch.ram().write_obj(value, at).unwrap();
                } else {
                    scratch.ram().write_obj(value, at).unwrap();
                }
            }
        }
    }
}

/// Compares thousands of addresses. `None` is a skip, whose reason is printed.
fn compare(cr4: u64, efer: u64) -> Option<()> {
    let scratch = ScratchVm::new(&kvm_for_test()?, RAM).unwrap();
    let file = RegisterFile::new(scratch.vm(), scratch.vcpu()).unwrap();
    let long = efer & LMA != 0;
    let start = if long {
        StartIn::Long
    } else {
        StartIn::Protected32
    };
    scratch.start(start, 0, 0).unwrap();
    let mut sregs = scratch.vcpu().get_sregs().unwrap();
    sregs.cr0 |= PG;
    sregs.cr4 = cr4;
    sregs.efer = if long { efer | 1 << 8 } else { efer };
    let mut paging = PagingState {
        cr0: sregs.cr0,
        cr3: 0,
        cr4,
        efer: sregs.efer,
        limits: file.paging_limits(),
    };
    let mode = PagingMode::new(&paging);
    paging.cr3 = tables(mode.levels());
    sregs.cr3 = paging.cr3;
    let mut random = Random(cr4 << 32 | efer);
    let mut mapped = 0;
    for _ in 0..ROUNDS {
        fill(&mut random, &scratch, &paging);
        // A KVM may refuse a mode, or use another mode instead without an error.
        let set = scratch.vcpu().set_sregs(&sregs);
        let now = scratch.vcpu().get_sregs().unwrap();
        if set.is_err() || (now.cr0, now.cr4, now.efer) != (sregs.cr0, sregs.cr4, sregs.efer) {
            eprintln!(
                "skipped: this host's KVM has no {mode:?} paging ({set:?}, CR0 is {:#x})",
                now.cr0
            );
            return None;
        }
        for _ in 0..ADDRESSES {
            let gva = match mode {
                PagingMode::Level4 => ((random.next() << 16).cast_signed() >> 16).cast_unsigned(),
                PagingMode::Level5 => ((random.next() << 7).cast_signed() >> 7).cast_unsigned(),
                _ => random.next() & 0xffff_ffff,
            };
            let ours = walk(
                &MemorySlots::from(scratch.ram().clone()),
                &paging,
                Gva::new(gva),
            );
            let kvm = scratch.vcpu().translate_gva(gva).unwrap();
            let theirs = (kvm.valid != 0).then_some(Gpa::new(kvm.physical_address));
            assert_eq!(
                ours.as_ref().ok().map(|walk| walk.gpa),
                theirs,
                "{mode:?} {gva:#x} {ours:x?}"
            );
            mapped += usize::from(theirs.is_some());
        }
    }
    let all = ROUNDS * ADDRESSES;
    eprintln!("{mode:?}: {mapped} of {all} addresses have a translation");
    assert!(
        (all / 10..all * 9 / 10).contains(&mapped),
        "{mapped} is too few or too many to compare"
    );
    Some(())
}

#[test]
fn kvm_agrees_on_32_bit_tables_without_large_pages() {
    compare(0, 0);
}

#[test]
fn kvm_agrees_on_32_bit_tables_with_4_mib_pages() {
    compare(PSE, 0);
}

#[test]
fn kvm_agrees_on_pae_tables() {
    compare(PAE, 0);
    compare(PAE, NXE);
}

#[test]
fn kvm_agrees_on_4_level_tables() {
    compare(PAE, LMA);
    compare(PAE, LMA | NXE);
}

#[test]
fn kvm_agrees_on_5_level_tables() {
    compare(PAE | LA57, LMA | NXE);
}

#[test]
fn kvm_agrees_without_paging() {
    let Some(kvm) = kvm_for_test() else { return };
    let scratch = ScratchVm::new(&kvm, RAM).unwrap();
    let file = RegisterFile::new(scratch.vm(), scratch.vcpu()).unwrap();
    let mut random = Random(1);
    for start in [StartIn::Real, StartIn::Protected32] {
        scratch.start(start, 0, 0).unwrap();
        let state = file.read(scratch.vcpu()).unwrap();
        let paging = PagingState::new(&state, file.paging_limits());
        for _ in 0..ADDRESSES {
            let gva = random.next() & 0xffff_ffff;
            let kvm = scratch.vcpu().translate_gva(gva).unwrap();
            assert_eq!((kvm.valid, kvm.physical_address), (1, gva));
            let ours = walk(
                &MemorySlots::from(scratch.ram().clone()),
                &paging,
                Gva::new(gva),
            )
            .unwrap();
            assert_eq!(ours.gpa, Gpa::new(gva));
        }
    }
}
