//! ACPI tables: the number of CPUs, and how to power off and to reset (ACPI 6.4, chapter 5). The crate `acpi_tables`
//! knows the formats; this file contains the values.

use super::layout;
use crate::devices::power;
use crate::devices::pvpanic;
use crate::devices::reset_control;
use acpi_tables::Aml;
use acpi_tables::aml::Device;
use acpi_tables::aml::IO;
use acpi_tables::aml::Name;
use acpi_tables::aml::Package;
use acpi_tables::aml::ResourceTemplate;
use acpi_tables::aml::Scope;
use acpi_tables::aml::ZERO;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::FADTBuilder;
use acpi_tables::fadt::Flags;
use acpi_tables::gas::AccessSize;
use acpi_tables::gas::AddressSpace;
use acpi_tables::gas::GAS;
use acpi_tables::madt::EnabledStatus;
use acpi_tables::madt::IoApic;
use acpi_tables::madt::ProcessorLocalApic;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::Address as _;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryError;
use vm_memory::GuestMemoryMmap;

/// The interrupt line of ACPI (SCI). No device raises it, but kernels require it.
const SCI: u8 = 9;

const OEM: [u8; 6] = *b"TRAPGT";
const OEM_TABLE: [u8; 8] = *b"TRAPGATE";
const OEM_REVISION: u32 = 1;
/// The length of the header with which every table except RSDP and FACS begins (5.2.6).
const HEADER_LEN: u32 = 36;

/// Writes all tables below 1 MiB and returns the address of the root pointer.
pub(crate) fn write(memory: &GuestMemoryMmap, cpus: u8) -> Result<GuestAddress, GuestMemoryError> {
    // FACS is the only table with its own alignment (64 bytes).
    let facs_at = layout::RSDP.unchecked_add(0x40);
    memory.write_slice(&bytes(&facs()), facs_at)?;
    let mut next = facs_at.unchecked_add(0x40);
    let mut place = |table: &dyn Aml| {
        let table = bytes(table);
        let at = next;
        next = next.unchecked_add((table.len() as u64).next_multiple_of(16));
        memory.write_slice(&table, at).map(|()| at)
    };
    let dsdt_at = place(&dsdt())?;
    let fadt_at = place(&fadt(facs_at, dsdt_at))?;
    let madt_at = place(&madt(cpus))?;
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt_at.raw_value());
    xsdt.add_entry(madt_at.raw_value());
    let xsdt_at = place(&xsdt)?;
    let rsdp = Rsdp::new(OEM, xsdt_at.raw_value());
    memory.write_slice(&bytes(&rsdp), layout::RSDP)?;
    Ok(layout::RSDP)
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// A table with this signature and no contents.
fn empty(signature: &[u8; 4], revision: u8) -> Sdt {
    Sdt::new(
        *signature,
        HEADER_LEN,
        revision,
        OEM,
        OEM_TABLE,
        OEM_REVISION,
    )
}

/// FACS (5.2.10).
fn facs() -> FACS {
    let mut facs = FACS::new();
    facs.version = 2;
    facs
}

/// FADT (5.2.9).
fn fadt(facs: GuestAddress, dsdt: GuestAddress) -> impl Aml {
    let low = |at: GuestAddress| u32::try_from(at.raw_value()).expect("tables are below 1 MiB");
    let port = |number: u16, bits: u8| {
        let size = AccessSize::Undefined;
        GAS::new(AddressSpace::SystemIo, bits, 0, size, number.into())
    };
    // C2 and C3 are not supported: the latencies are above the limits (101 and 1001 us).
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // There are no fixed power and sleep buttons and no fixed RTC event.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    fadt.fadt_minor_version = 0;
    fadt.firmware_ctrl = low(facs).into();
    // Sets both addresses of the DSDT. The builder's setters would clear the other one.
    fadt.dsdt = low(dsdt).into();
    fadt.x_dsdt = dsdt.raw_value().into();
    fadt.sci_int = u16::from(SCI).into();
    fadt.pm1a_evt_blk = u32::from(power::EVENT_PORT).into();
    fadt.pm1a_cnt_blk = u32::from(power::CONTROL_PORT).into();
    fadt.pm1_evt_len = power::EVENT_LEN;
    fadt.pm1_cnt_len = power::CONTROL_LEN;
    fadt.x_pm1a_evt_blk = port(power::EVENT_PORT, power::EVENT_LEN * 8);
    fadt.x_pm1a_cnt_blk = port(power::CONTROL_PORT, power::CONTROL_LEN * 8);
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    // There are legacy devices, but no keyboard controller that needs a driver, no VGA, no message-signalled interrupts
    // and no CMOS clock.
    fadt.iapc_boot_arch = 0b10_1101.into();
    fadt.reset_reg = port(reset_control::RESET_PORT, 8);
    fadt.reset_value = reset_control::HARD_RESET;
    fadt.finalize()
}

/// MADT (5.2.12). The crate's `MADT` cannot declare the legacy interrupt controllers, and does not support the last two
/// entries.
fn madt(cpus: u8) -> Sdt {
    let mut madt = empty(b"APIC", 4);
    madt.append(layout::LOCAL_APIC);
    // PCAT_COMPAT: the two legacy interrupt controllers exist as well.
    madt.append(1_u32);
    for cpu in 0..cpus {
        // The processor's id is the VP's index.
        ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled).to_aml_bytes(&mut madt);
    }
    // The id behind those of the CPUs; its first interrupt is 0. KVM's default routing connects line N to pin N.
    IoApic::new(cpus, layout::IO_APIC, 0).to_aml_bytes(&mut madt);
    // Interrupt source override: the SCI is level-triggered, active high.
    madt.append_slice(&[2, 10, 0, SCI, SCI, 0, 0, 0, 0x0d, 0]);
    // NMI on LINT1 of every CPU.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

/// DSDT: the sleep type of power-off, which [`power`] expects, and the panic port.
fn dsdt() -> Sdt {
    let mut dsdt = empty(b"DSDT", 2);
    let sleep_types = Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &sleep_types).to_aml_bytes(&mut dsdt);
    let port = IO::new(pvpanic::PORT, pvpanic::PORT, 1, 1);
    let identifier = Name::new("_HID".into(), &pvpanic::HARDWARE_ID);
    // Present, enabled, shown in the user interface, working.
    let status = Name::new("_STA".into(), &0x0f_u8);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&port]));
    let panic_device = Device::new("PVPC".into(), vec![&identifier, &status, &resources]);
    Scope::new("\\_SB_".into(), vec![&panic_device]).to_aml_bytes(&mut dsdt);
    dsdt
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

    /// All tables by their signature, found in the same way as a kernel does.
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

    /// The fields at their offsets in the specification (5.2.9).
    #[test]
    fn the_fadt_names_the_ports_of_the_devices() {
        let fadt = &walk(1)[0];
        let io_space = |at: usize| {
            let [space, bits, offset, _, low, high, ..] = fadt[at..at + 12] else {
                panic!("a slice of twelve bytes");
            };
            assert_eq!((space, offset), (1, 0));
            (u16::from_le_bytes([low, high]), bits)
        };
        assert_eq!(io_space(148), (power::EVENT_PORT, 32));
        assert_eq!(io_space(172), (power::CONTROL_PORT, 16));
        assert_eq!(io_space(116), (reset_control::RESET_PORT, 8));
        assert_eq!(fadt[128], reset_control::HARD_RESET);
        assert_eq!(fadt[40..44], fadt[140..144]);
        // Legacy devices, no VGA, no message-signalled interrupts, no CMOS clock; no fixed buttons, a reset register.
        assert_eq!(fadt[109..116], [0x2d, 0, 0, 0x75, 4, 0, 0]);
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
