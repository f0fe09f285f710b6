//! The registers of the first CPU at the guest's first instruction.

use super::layout;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use vm_memory::Address as _;
use vm_memory::Bytes as _;
use vm_memory::GuestMemoryError;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::cr4;
use vmm_core_defs::regs::x86_64::bits::efer;
use vmm_core_defs::regs::x86_64::bits::rflags;

/// The entry point and the mode in which the first CPU starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartState {
    /// Xen's PVH start state: flat 32-bit protected mode, with the address of the start info in EBX.
    Pvh {
        /// The physical address of the first instruction.
        entry: u64,
    },
    /// Linux's 64-bit entry: long mode with the first 4 GiB mapped, and the address of the zero page in RSI.
    Linux64 {
        /// The address of the first instruction.
        entry: u64,
    },
}

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

/// Descriptor types (SDM volume 3, 3.4.5.1): code, execute/read, accessed; data, read/write, accessed; busy 32-bit TSS.
const CODE: u8 = 0xb;
const DATA: u8 = 0x3;
const TASK: u8 = 0xb;

impl StartState {
    /// Writes the tables that this state needs: descriptors and, for the 64-bit entry, page tables.
    pub(crate) fn write_tables(self, memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
        for (index, segment) in self.segments().iter().enumerate() {
            memory.write_obj(
                descriptor(segment),
                layout::GDT.unchecked_add(8 * (index as u64 + 2)),
            )?;
        }
        if let Self::Linux64 { .. } = self {
            write_page_tables(memory)?;
        }
        Ok(())
    }

    /// The general registers of this state.
    pub(crate) fn general(self) -> kvm_regs {
        let (rip, rbx, rsi) = match self {
            Self::Pvh { entry } => (entry, layout::PVH_START_INFO.raw_value(), 0),
            Self::Linux64 { entry } => (entry, 0, layout::ZERO_PAGE.raw_value()),
        };
        kvm_regs {
            rip,
            rbx,
            rsi,
            rflags: rflags::FIXED,
            ..Default::default()
        }
    }

    /// Changes the power-on system registers to those of this state.
    pub(crate) fn apply_system(self, sregs: &mut kvm_sregs) {
        let [code, data, task] = self.segments();
        sregs.cs = code;
        (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
        sregs.tr = task;
        sregs.gdt.base = layout::GDT.raw_value();
        sregs.gdt.limit = TASK_SELECTOR + 7;
        sregs.idt.base = 0;
        sregs.idt.limit = 0;
        sregs.cr0 = cr0::PE | cr0::ET;
        sregs.cr4 = 0;
        sregs.efer = 0;
        if let Self::Linux64 { .. } = self {
            sregs.cr0 |= cr0::PG;
            sregs.cr3 = layout::PAGE_TABLES.raw_value();
            sregs.cr4 = cr4::PAE;
            sregs.efer = efer::LME | efer::LMA;
        }
    }

    /// Code, data and task segment, in the order of the descriptor table.
    fn segments(self) -> [kvm_segment; 3] {
        let long = u8::from(matches!(self, Self::Linux64 { .. }));
        let flat = kvm_segment {
            limit: 0xffff_ffff,
            present: 1,
            g: 1,
            s: 1,
            ..Default::default()
        };
        [
            kvm_segment {
                selector: CODE_SELECTOR,
                type_: CODE,
                l: long,
                db: 1 - long,
                ..flat
            },
            kvm_segment {
                selector: DATA_SELECTOR,
                type_: DATA,
                db: 1,
                ..flat
            },
            kvm_segment {
                selector: TASK_SELECTOR,
                type_: TASK,
                limit: 0x67,
                s: 0,
                g: 0,
                ..flat
            },
        ]
    }
}

/// Encodes a segment as a descriptor (SDM volume 3, figure 3-8).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    };
    let (limit, base) = (u64::from(limit), segment.base);
    let bit = |value: u8, at: u32| u64::from(value) << at;
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | bit(segment.type_, 40)
        | bit(segment.s, 44)
        | bit(segment.dpl, 45)
        | bit(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | bit(segment.l, 53)
        | bit(segment.db, 54)
        | bit(segment.g, 55)
        | (base >> 24 & 0xff) << 56
}

/// Maps the first 4 GiB with 2 MiB pages: one PML4, one PDPT, four page directories.
fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 0x3;
    const LARGE: u64 = 0x80;
    let table = |index: u64| layout::PAGE_TABLES.unchecked_add(index * 4096);
    memory.write_obj(table(1).raw_value() | PRESENT_WRITABLE, table(0))?;
    for gib in 0..4 {
        memory.write_obj(
            table(2 + gib).raw_value() | PRESENT_WRITABLE,
            table(1).unchecked_add(8 * gib),
        )?;
        for page in 0..512 {
            let entry = (gib << 30) | (page << 21) | LARGE | PRESENT_WRITABLE;
            memory.write_obj(entry, table(2 + gib).unchecked_add(8 * page))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    #[test]
    fn the_descriptor_table_says_what_the_registers_say() {
        let [code, data, task] = StartState::Pvh { entry: 0 }
            .segments()
            .map(|segment| descriptor(&segment));
        assert_eq!(
            [code, data, task],
            [
                0x00cf_9b00_0000_ffff,
                0x00cf_9300_0000_ffff,
                0x0000_8b00_0000_0067
            ]
        );
        assert_eq!(
            descriptor(&StartState::Linux64 { entry: 0 }.segments()[0]),
            0x00af_9b00_0000_ffff
        );
    }

    #[test]
    fn the_page_tables_map_each_address_to_itself() {
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("1 MiB of memory");
        StartState::Linux64 { entry: 0 }
            .write_tables(&memory)
            .expect("the tables fit");
        let read = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).expect("in memory");
        for gva in [0_u64, 0x12_3456_789a & 0xffff_ffff, 0xffff_ffff] {
            let pdpt = read(layout::PAGE_TABLES.raw_value()) & !0xfff;
            let directory = read(pdpt + 8 * (gva >> 30)) & !0xfff;
            let entry = read(directory + 8 * (gva >> 21 & 0x1ff));
            assert_eq!(entry & 0x81, 0x81);
            assert_eq!(entry & !0x1f_ffff | gva & 0x1f_ffff, gva);
        }
        let end = layout::PAGE_TABLES.raw_value() + 6 * 4096;
        assert!(end <= layout::COMMAND_LINE.raw_value());
    }
}
