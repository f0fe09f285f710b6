//! Memory without KVM: RAM in two regions, a device between them, and hand-made page tables.

use super::*;
use crate::arch::PagingLimits;
use crate::machine::Machine;
use crate::machine::MachineError;
use kvm_ioctls::VcpuFd;
use std::sync::Mutex;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vmm_core_defs::memory::TableEntry;
use vmm_core_defs::memory::WalkFaultReason;

/// RAM at 0..1 MiB and at 2..3 MiB. A device of 0x100 bytes at 1 MiB.
const RAM_LEN: usize = 0x10_0000;
const DEVICE: u64 = 0x10_0000;
const DEVICE_END: u64 = 0x10_0100;
const UPPER: u64 = 0x20_0000;
const RESET_REGISTER: u64 = 0x10_00f8;

/// Reads return the low byte of each address. Accesses are recorded.
#[derive(Default)]
struct Device {
    accesses: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Device {
    fn claims(gpa: Gpa) -> bool {
        (DEVICE..DEVICE_END).contains(&gpa.value())
    }

    fn pieces(&self) -> Vec<(u64, usize)> {
        let mut accesses = self.accesses.lock().unwrap();
        accesses
            .drain(..)
            .map(|(gpa, data)| (gpa, data.len()))
            .collect()
    }
}

impl Machine for Device {
    fn pio_read(&self, _vp: VpIndex, _port: u16, _data: &mut [u8]) {
        panic!("memory is no port");
    }

    fn pio_write(&self, _vp: VpIndex, _port: u16, _data: &[u8]) -> DeviceOutcome {
        panic!("memory is no port");
    }

    fn mmio_read(&self, vp: Option<VpIndex>, gpa: Gpa, data: &mut [u8]) -> MmioOutcome {
        assert_eq!(vp, None, "a debugger reads");
        if !Self::claims(gpa) {
            return MmioOutcome::Unclaimed;
        }
        for (byte, address) in data.iter_mut().zip(gpa.value()..) {
            *byte = address.to_le_bytes()[0];
        }
        self.accesses
            .lock()
            .unwrap()
            .push((gpa.value(), data.to_vec()));
        MmioOutcome::Handled
    }

    fn mmio_write(
        &self,
        _vp: Option<VpIndex>,
        gpa: Gpa,
        data: &[u8],
    ) -> (MmioOutcome, DeviceOutcome) {
        if !Self::claims(gpa) {
            return (MmioOutcome::Unclaimed, DeviceOutcome::Done);
        }
        self.accesses
            .lock()
            .unwrap()
            .push((gpa.value(), data.to_vec()));
        let outcome = if gpa.value() == RESET_REGISTER {
            DeviceOutcome::Reset
        } else {
            DeviceOutcome::Done
        };
        (MmioOutcome::Handled, outcome)
    }

    fn init_vp(&self, _vp: VpIndex, _vcpu: &VcpuFd) -> Result<(), MachineError> {
        panic!("there is no VP");
    }

    fn reset(&self) -> Result<(), MachineError> {
        panic!("a debugger's write resets nothing by itself");
    }
}

fn machine() -> (DebugMemory, Arc<Device>) {
    let ranges = [(0, RAM_LEN), (UPPER, RAM_LEN)];
    let ram = Arc::new(MemorySlots::zeroed(&ranges));
    let device = Arc::new(Device::default());
    (
        DebugMemory::new(ram, device.clone(), Arc::default()),
        device,
    )
}

fn put(memory: &DebugMemory, gpa: u64, bytes: &[u8]) {
    memory
        .ram
        .backing()
        .write_slice(bytes, GuestAddress(gpa))
        .unwrap();
}

fn put_entry(memory: &DebugMemory, gpa: u64, entry: u64) {
    put(memory, gpa, &entry.to_le_bytes());
}

const VP: VpIndex = VpIndex::new(3);

/// Four levels, from 1000h on. The virtual pages from 0 on are at 5000h and 7000h, at the end of the low RAM, and at a device. The next page is not mapped.
fn paged(memory: &DebugMemory) -> AddressSpace {
    put_entry(memory, 0x1000, 0x2003);
    put_entry(memory, 0x2000, 0x3003);
    put_entry(memory, 0x3000, 0x4003);
    for (n, page) in [0x5000, 0x7000, 0xf_f000, DEVICE].into_iter().enumerate() {
        put_entry(memory, 0x4000 + 8 * n as u64, page | 1);
    }
    AddressSpace {
        vp: VP,
        paging: PagingState {
            cr0: 1 << 31 | 1,
            cr3: 0x1000,
            cr4: 1 << 5,
            efer: 1 << 10,
            limits: PagingLimits::new(40, true),
        },
    }
}

/// The reason why the page after the last one of [`paged`] is not mapped.
const PAGE_4: WalkFaultReason = WalkFaultReason::NotPresent(TableEntry {
    level: 1,
    gpa: Gpa::new(0x4020),
    value: 0,
});

fn gpa(value: u64) -> Gpa {
    Gpa::new(value)
}

fn gva(value: u64) -> Gva {
    Gva::new(value)
}

#[test]
fn ram_is_read_as_it_was_written() {
    let (memory, _) = machine();
    let data: Vec<u8> = (0..=255).collect();
    assert_eq!(memory.write_gpa(gpa(0x123), &data), Ok(DeviceOutcome::Done));
    assert_eq!(memory.read_gpa(gpa(0x123), 256).unwrap(), data);
    assert_eq!(memory.read_gpa(gpa(0x123), 0).unwrap(), [0; 0]);
}

#[test]
fn a_device_is_accessed_in_naturally_aligned_pieces() {
    let (memory, device) = machine();
    let read = memory.read_gpa(gpa(DEVICE + 1), 22).unwrap();
    assert_eq!(read, (1..23).collect::<Vec<u8>>());
    let at = |offset: u64, len| (DEVICE + offset, len);
    let pieces = [
        at(1, 1),
        at(2, 2),
        at(4, 4),
        at(8, 8),
        at(16, 4),
        at(20, 2),
        at(22, 1),
    ];
    assert_eq!(device.pieces(), pieces);
    memory.write_gpa(gpa(DEVICE + 1), &[0; 22]).unwrap();
    assert_eq!(device.pieces(), pieces);
}

#[test]
fn a_range_over_ram_device_and_the_hole_after_it_is_read_up_to_the_hole() {
    let (memory, device) = machine();
    put(&memory, 0xf_fffe, &[0xaa, 0xbb]);
    let read = memory.read_gpa(gpa(0xf_fffe), 0x1000).unwrap();
    assert_eq!(read.len(), 2 + 0x100);
    assert_eq!(read[..4], [0xaa, 0xbb, 0, 1]);
    assert_eq!(device.pieces().len(), 0x100 / 8);
    let hole = Err(DebugError::NoMemory {
        gpa: gpa(DEVICE_END),
    });
    assert_eq!(memory.read_gpa(gpa(DEVICE_END), 4), hole);
    let end = UPPER + RAM_LEN as u64;
    assert_eq!(memory.read_gpa(gpa(end - 3), 8).unwrap().len(), 3);
    assert_eq!(
        memory.read_gpa(gpa(end), 1),
        Err(DebugError::NoMemory { gpa: gpa(end) })
    );
    // A device access never includes RAM behind the hole.
    assert_eq!(
        memory.read_gpa(gpa(UPPER - 4), 8),
        Err(DebugError::NoMemory {
            gpa: gpa(UPPER - 4)
        })
    );
}

#[test]
fn a_write_into_nothing_says_at_which_byte() {
    let (memory, _) = machine();
    let result = memory.write_gpa(gpa(DEVICE_END - 4), &[1; 8]);
    assert_eq!(
        result,
        Err(DebugError::NoMemory {
            gpa: gpa(DEVICE_END)
        })
    );
}

#[test]
fn what_a_device_asks_for_reaches_the_caller() {
    let (memory, _) = machine();
    let result = memory.write_gpa(gpa(RESET_REGISTER - 8), &[0; 16]);
    assert_eq!(result, Ok(DeviceOutcome::Reset));
    let space = paged(&memory);
    let offset = RESET_REGISTER - DEVICE;
    let result = memory.write_gva(&space, gva(0x3000 + offset - 8), &[0; 16]);
    assert_eq!(result, Ok(DeviceOutcome::Reset));
}

#[test]
fn lengths_that_are_too_long_or_wrap_are_refused_before_anything_is_read() {
    let (memory, device) = machine();
    let space = paged(&memory);
    for (address, len) in [
        (0, MAX_TRANSFER + 1),
        (0, usize::MAX),
        (u64::MAX, 2),
        (u64::MAX - 0xfff, 0x1001),
    ] {
        let refused = DebugError::BadLength {
            address,
            len: len as u64,
        };
        assert_eq!(memory.read_gpa(gpa(address), len), Err(refused.clone()));
        assert_eq!(memory.read_gva(&space, gva(address), len), Err(refused));
    }
    let refused = DebugError::BadLength {
        address: u64::MAX,
        len: 2,
    };
    assert_eq!(
        memory.write_gpa(gpa(u64::MAX), &[0; 2]),
        Err(refused.clone())
    );
    assert_eq!(
        memory.write_gva(&space, gva(u64::MAX), &[0; 2]),
        Err(refused)
    );
    // The last byte of the address space does not wrap.
    assert_eq!(
        memory.read_gpa(gpa(u64::MAX), 1),
        Err(DebugError::NoMemory { gpa: gpa(u64::MAX) })
    );
    assert_eq!(device.pieces(), []);
}

#[test]
fn virtual_reads_and_writes_cross_pages_that_are_apart() {
    let (memory, _) = machine();
    let space = paged(&memory);
    let data: Vec<u8> = (0..0x1800u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    memory.write_gva(&space, gva(0x400), &data).unwrap();
    assert_eq!(memory.read_gva(&space, gva(0x400), 0x1800).unwrap(), data);
    assert_eq!(memory.read_gpa(gpa(0x5400), 0xc00).unwrap(), data[..0xc00]);
    assert_eq!(memory.read_gpa(gpa(0x7000), 0xc00).unwrap(), data[0xc00..]);
}

#[test]
fn a_virtual_read_ends_at_the_first_page_without_mapping() {
    let (memory, device) = machine();
    let space = paged(&memory);
    // Pages 0-2 are RAM, page 3 is a device with 100h bytes and a hole behind it, page 4 is not mapped.
    assert_eq!(
        memory.read_gva(&space, gva(0), 0x8000).unwrap().len(),
        0x3100
    );
    device.pieces();
    let unmapped = Err(DebugError::NotMapped {
        vp: VP,
        gva: gva(0x4000),
        why: PAGE_4,
    });
    assert_eq!(memory.read_gva(&space, gva(0x4000), 1), unmapped);
    let nothing = Err(DebugError::NoMemory {
        gpa: gpa(DEVICE_END),
    });
    assert_eq!(memory.read_gva(&space, gva(0x3100), 1), nothing);
}

#[test]
fn a_virtual_write_changes_nothing_unless_every_page_is_mapped() {
    let (memory, device) = machine();
    let space = paged(&memory);
    put(&memory, 0x7000, &[7; 16]);
    let result = memory.write_gva(&space, gva(0x1000), &[0xff; 0x3001]);
    assert_eq!(
        result,
        Err(DebugError::NotMapped {
            vp: VP,
            gva: gva(0x4000),
            why: PAGE_4,
        })
    );
    assert_eq!(memory.read_gpa(gpa(0x7000), 16).unwrap(), [7; 16]);
    assert_eq!(device.pieces(), []);
}

#[test]
fn translate_lists_the_walk() {
    let (memory, _) = machine();
    let space = paged(&memory);
    let found = memory.translate(&space, gva(0x1234)).unwrap();
    assert_eq!((found.gpa, found.entries.len()), (gpa(0x7234), 4));
    let unmapped = Err(DebugError::NotMapped {
        vp: VP,
        gva: gva(0x4000),
        why: PAGE_4,
    });
    assert_eq!(memory.translate(&space, gva(0x4000)), unmapped);
}

#[test]
fn without_paging_a_read_at_the_top_wraps_to_0_as_the_addresses_do() {
    let (memory, _) = machine();
    let mut space = paged(&memory);
    space.paging.cr0 = 0;
    put(&memory, 0, &[1, 2]);
    assert_eq!(memory.read_gva(&space, gva(1 << 32), 2).unwrap(), [1, 2]);
    let nothing = Err(DebugError::NoMemory {
        gpa: gpa(0xffff_fffe),
    });
    assert_eq!(memory.read_gva(&space, gva(0xffff_fffe), 4), nothing);
}

/// Counts the page-table entries that are read.
struct Counted<'a>(&'a MemorySlots, std::cell::Cell<usize>);

impl PhysicalMemory for Counted<'_> {
    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        self.1.set(self.1.get() + 1);
        self.0.read_u32(gpa)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        self.1.set(self.1.get() + 1);
        self.0.read_u64(gpa)
    }
}

/// The number of table reads decides whether a bulk read is as fast as a copy.
#[test]
fn a_page_is_walked_once_whatever_its_size_and_neighbours_are_merged() {
    let (memory, _) = machine();
    let space = paged(&memory);
    for n in 0..16 {
        put_entry(&memory, 0x4000 + 8 * n, 0x2_0000 + n * 0x1000 + 1);
    }
    put_entry(&memory, 0x3008, 0x20_0083);
    let count = |start, len| {
        let counted = Counted(&memory.ram, 0.into());
        let (runs, fault) = map(&counted, &space.paging, gva(start), len);
        assert_eq!(fault, None);
        (runs.len(), counted.1.get())
    };
    assert_eq!(count(0, 0x1_0000), (1, 16 * 4), "16 pages in a row");
    assert_eq!(count(0x20_0000, 0x1_0000), (1, 3), "one page of 2 MiB");
}

/// RAM that a VMM may provide: read-only, of a file that has shrunk, without access.
#[test]
fn what_the_vmm_has_mapped_without_access_is_an_error_and_the_rest_is_served() {
    use crate::kvm::guest_ram::odd_ram::CLOSED;
    use crate::kvm::guest_ram::odd_ram::READ_ONLY;
    use crate::kvm::guest_ram::odd_ram::SHRUNK;
    use crate::kvm::guest_ram::odd_ram::odd_ram;
    let ram = Arc::new(odd_ram());
    let memory = DebugMemory::new(ram, Arc::new(Device::default()), Arc::default());
    let out_of_reach = |at| DebugError::MemoryOutOfReach { gpa: gpa(at) };
    let end = SHRUNK + 0x1000;
    assert_eq!(memory.read_gpa(gpa(READ_ONLY), 4).unwrap(), [0; 4]);
    assert_eq!(
        memory.write_gpa(gpa(READ_ONLY), &[1]),
        Err(out_of_reach(READ_ONLY))
    );
    assert_eq!(memory.read_gpa(gpa(end), 4), Err(out_of_reach(end)));
    assert_eq!(memory.read_gpa(gpa(end - 6), 100).unwrap(), [0; 6]);
    assert_eq!(
        memory.write_gpa(gpa(end - 6), &[5; 9]),
        Err(out_of_reach(end))
    );
    assert_eq!(memory.read_gpa(gpa(end - 6), 100).unwrap(), [5; 6]);
    assert_eq!(memory.read_gpa(gpa(CLOSED), 1), Err(out_of_reach(CLOSED)));
    // A walk ends at tables that cannot be read, and a read ends at pages that cannot be read.
    let space = paged(&memory);
    put_entry(&memory, 0x4000, READ_ONLY | 3);
    put_entry(&memory, 0x4008, (end - 0x1000) | 3);
    put_entry(&memory, 0x4010, end | 3);
    put_entry(&memory, 0x3008, CLOSED | 3);
    assert_eq!(
        memory.read_gva(&space, gva(0xff0), 0x20).unwrap().len(),
        0x20
    );
    assert_eq!(memory.read_gva(&space, gva(0x1ff8), 0x20).unwrap().len(), 8);
    assert_eq!(
        memory.write_gva(&space, gva(0), &[1]),
        Err(out_of_reach(READ_ONLY))
    );
    assert_eq!(
        memory.read_gva(&space, gva(0x2000), 1),
        Err(out_of_reach(end))
    );
    let no_table = memory.read_gva(&space, gva(0x20_0000), 1);
    assert!(
        matches!(no_table, Err(DebugError::NotMapped { .. })),
        "{no_table:?}"
    );
}
