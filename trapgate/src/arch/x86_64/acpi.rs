//! ACPI tables: how many CPUs there are, how to switch off and how to reset (ACPI 6.4, chapter 5).

use super::layout;
use crate::devices::power;
use crate::devices::pvpanic;
use crate::devices::reset_control;
use vm_memory::Address as _;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryError;
use vm_memory::GuestMemoryMmap;

/// The interrupt line of ACPI itself. Nothing raises it here, but kernels want one.
const SCI: u8 = 9;

/// `\_S5`: the sleep type that means off, which is what [`power`] expects. `Name (_S5, Package () { 0, 0, 0, 0 })` in AML.
const SLEEP_TYPES: &[u8] = &[0x08, b'_', b'S', b'5', b'_', 0x12, 0x06, 0x04, 0, 0, 0, 0];

/// AML (ACPI 6.4, 20.2): `Scope (\\_SB) { Device (PVPC) { ... } }`, the panic port with its identifier and its resource.
fn panic_device() -> Vec<u8> {
    let [low, high] = pvpanic::PORT.to_le_bytes();
    // An I/O port descriptor, 16 bits decoded, one port (6.4.2.5), and the end tag.
    let resources = [0x47, 1, low, high, low, high, 1, 1, 0x79, 0];
    let buffer = package(&[0x11], &[&[0x0a, 10], &resources[..]].concat());
    let identifier = [&[0x0d], pvpanic::HARDWARE_ID.as_bytes(), &[0]].concat();
    let names = [
        &b"\x08_HID"[..],
        &identifier,
        // Present, enabled, shown, working.
        b"\x08_STA\x0a\x0f",
        b"\x08_CRS",
        &buffer,
    ];
    let device = package(&[0x5b, 0x82], &[&b"PVPC"[..], &names.concat()].concat());
    package(&[0x10], &[&b"\\_SB_"[..], &device].concat())
}

/// An opcode, the length of what follows in one byte (20.2.4: up to 63, itself included), and that.
fn package(opcode: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(1 + body.len()).expect("a few dozen bytes");
    assert!(length < 64, "longer packages have longer lengths");
    [opcode, &[length], body].concat()
}

/// Writes all tables below 1 MiB and says where the root pointer is.
pub fn write(memory: &GuestMemoryMmap, cpus: u8) -> Result<GuestAddress, GuestMemoryError> {
    // FACS is the one table with an alignment of its own (64 bytes) and without a checksum.
    let facs_at = layout::RSDP.unchecked_add(0x40);
    memory.write_slice(&facs(), facs_at)?;
    let mut next = facs_at.unchecked_add(0x40);
    let mut place = |table: &[u8]| {
        let at = next;
        next = next.unchecked_add((table.len() as u64).next_multiple_of(16));
        memory.write_slice(table, at).map(|()| at)
    };
    let dsdt_body = [SLEEP_TYPES, &panic_device()].concat();
    let dsdt_at = place(&table(b"DSDT", 2, &dsdt_body))?;
    let fadt_at = place(&fadt(facs_at, dsdt_at))?;
    let madt_at = place(&madt(cpus))?;
    let entries = [fadt_at, madt_at]
        .map(|at| at.raw_value().to_le_bytes())
        .concat();
    let xsdt_at = place(&table(b"XSDT", 1, &entries))?;
    memory.write_slice(&rsdp(xsdt_at), layout::RSDP)?;
    Ok(layout::RSDP)
}

/// A table with the standard header (5.2.6) and its checksum.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(36 + body.len()).expect("a table is a few hundred bytes");
    let mut table = Vec::new();
    table.extend_from_slice(signature);
    table.extend_from_slice(&length.to_le_bytes());
    table.extend_from_slice(&[revision, 0]);
    table.extend_from_slice(b"TRAPGTTRAPGATE");
    table.extend_from_slice(&1_u32.to_le_bytes());
    table.extend_from_slice(b"TRPG");
    table.extend_from_slice(&1_u32.to_le_bytes());
    table.extend_from_slice(body);
    table[9] = checksum(&table);
    table
}

/// What makes the bytes sum up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// 5.2.5.3
fn rsdp(xsdt: GuestAddress) -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0TRAPGT\x02\0\0\0\0\x24\0\0\0".to_vec();
    rsdp.extend_from_slice(&xsdt.raw_value().to_le_bytes());
    rsdp.extend_from_slice(&[0; 4]);
    rsdp[8] = checksum(&rsdp[..20]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

/// 5.2.10
fn facs() -> [u8; 64] {
    let mut facs = [0; 64];
    facs[..4].copy_from_slice(b"FACS");
    facs[4] = 64;
    facs[32] = 2;
    facs
}

/// 5.2.9, with the offsets given there less the header's 36.
fn fadt(facs: GuestAddress, dsdt: GuestAddress) -> Vec<u8> {
    let mut body = vec![0; 276 - 36];
    let mut put = |offset: usize, bytes: &[u8]| {
        body[offset - 36..offset - 36 + bytes.len()].copy_from_slice(bytes);
    };
    let low = |at: GuestAddress| u32::try_from(at.raw_value()).expect("tables are below 1 MiB");
    let port = |number: u16, bits: u8| {
        // Generic address structure (5.2.3.2): I/O space.
        let mut address = vec![1, bits, 0, 0];
        address.extend_from_slice(&u64::from(number).to_le_bytes());
        address
    };
    put(36, &low(facs).to_le_bytes());
    put(40, &low(dsdt).to_le_bytes());
    put(46, &u16::from(SCI).to_le_bytes());
    put(56, &u32::from(power::EVENT_PORT).to_le_bytes());
    put(64, &u32::from(power::CONTROL_PORT).to_le_bytes());
    put(88, &[power::EVENT_LEN, power::CONTROL_LEN]);
    // C2 and C3 are not there: latencies above the limits.
    put(96, &101_u16.to_le_bytes());
    put(98, &1001_u16.to_le_bytes());
    // Legacy devices are there; no keyboard controller worth a driver, no VGA, no message-signalled interrupts, no CMOS clock.
    put(109, &0b10_1101_u16.to_le_bytes());
    // WBINVD works; C1 on all CPUs; no fixed power, sleep or RTC events; the reset register is there.
    put(
        112,
        &((1_u32 << 0) | (1 << 2) | (1 << 4) | (1 << 5) | (1 << 6) | (1 << 10)).to_le_bytes(),
    );
    put(116, &port(reset_control::RESET_PORT, 8));
    put(128, &[reset_control::HARD_RESET]);
    put(140, &dsdt.raw_value().to_le_bytes());
    put(148, &port(power::EVENT_PORT, power::EVENT_LEN * 8));
    put(172, &port(power::CONTROL_PORT, power::CONTROL_LEN * 8));
    table(b"FACP", 6, &body)
}

/// 5.2.12
fn madt(cpus: u8) -> Vec<u8> {
    let mut body = layout::LOCAL_APIC.to_le_bytes().to_vec();
    // The two legacy interrupt controllers are there as well.
    body.extend_from_slice(&1_u32.to_le_bytes());
    for cpu in 0..cpus {
        // Processor local APIC: its id is the VP's index; enabled.
        body.extend_from_slice(&[0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    // I/O APIC, id past the CPUs', first interrupt 0. KVM's default routing joins line N to pin N.
    body.extend_from_slice(&[1, 12, cpus, 0]);
    body.extend_from_slice(&layout::IO_APIC.to_le_bytes());
    body.extend_from_slice(&0_u32.to_le_bytes());
    // The SCI is level-triggered, active high.
    body.extend_from_slice(&[2, 10, 0, SCI, SCI, 0, 0, 0, 0x0d, 0]);
    // NMI on LINT1 of every CPU.
    body.extend_from_slice(&[4, 6, 0xff, 0, 0, 1]);
    table(b"APIC", 4, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn written(cpus: u8) -> (GuestMemoryMmap, GuestAddress) {
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("1 MiB of memory");
        let rsdp = write(&memory, cpus).expect("the tables fit");
        (memory, rsdp)
    }

    fn table_at(memory: &GuestMemoryMmap, at: u64) -> Vec<u8> {
        let length: u32 = memory.read_obj(GuestAddress(at + 4)).expect("in memory");
        let mut bytes = vec![0; length as usize];
        memory
            .read_slice(&mut bytes, GuestAddress(at))
            .expect("in memory");
        bytes
    }

    /// The tables by signature, found as a kernel finds them.
    fn walk(cpus: u8) -> Vec<Vec<u8>> {
        let (memory, rsdp) = written(cpus);
        let mut root = [0; 36];
        memory.read_slice(&mut root, rsdp).expect("in memory");
        assert_eq!(&root[..8], b"RSD PTR ");
        assert_eq!((sum(&root[..20]), sum(&root)), (0, 0));
        let xsdt = table_at(
            &memory,
            u64::from_le_bytes(root[24..32].try_into().expect("eight bytes")),
        );
        let mut tables: Vec<_> = xsdt[36..]
            .chunks_exact(8)
            .map(|at| {
                table_at(
                    &memory,
                    u64::from_le_bytes(at.try_into().expect("eight bytes")),
                )
            })
            .collect();
        let dsdt = u64::from_le_bytes(tables[0][140..148].try_into().expect("eight bytes"));
        tables.push(table_at(&memory, dsdt));
        tables.push(xsdt);
        tables
    }

    #[test]
    fn every_table_is_found_from_the_root_and_sums_to_zero() {
        let tables = walk(254);
        let signatures: Vec<_> = tables.iter().map(|table| &table[..4]).collect();
        assert_eq!(signatures, [b"FACP", b"APIC", b"DSDT", b"XSDT"]);
        assert!(tables.iter().all(|table| sum(table) == 0));
        assert_eq!(tables[0].len(), 276);
    }

    /// Byte by byte, as compiled by hand from the specification.
    #[test]
    fn the_dsdt_tells_of_the_panic_port() {
        let dsdt = &walk(1)[2];
        let mut wanted = b"\x10\x36\\_SB_\x5b\x82\x2ePVPC\x08_HID\x0dQEMU0001\0".to_vec();
        wanted.extend(b"\x08_STA\x0a\x0f\x08_CRS\x11\x0d\x0a\x0a");
        wanted.extend(b"\x47\x01\x05\x05\x05\x05\x01\x01\x79\0");
        assert!(dsdt.ends_with(&wanted), "{dsdt:x?}");
    }

    #[test]
    fn the_madt_lists_each_cpu_once() {
        let madt = &walk(3)[1];
        let mut entries = Vec::new();
        let mut rest = &madt[44..];
        while let [kind, length, ..] = *rest {
            entries.push((kind, rest[3]));
            rest = &rest[usize::from(length)..];
        }
        assert_eq!(entries, [(0, 0), (0, 1), (0, 2), (1, 0), (2, SCI), (4, 0)]);
    }

    #[test]
    fn the_tables_of_the_largest_guest_stay_below_1_mib() {
        let (memory, _) = written(254);
        let mut last = [0; 16];
        memory
            .read_slice(&mut last, GuestAddress(0xf_fff0))
            .expect("in memory");
        assert_eq!(last, [0; 16]);
    }
}
