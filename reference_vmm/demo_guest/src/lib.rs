//! The built-in demo guest: an x86-64 ELF kernel with a PVH entry note and DWARF line information. Its sources are in
//! `guest/`.
//!
//! The guest boots unchanged in Trapgate and in QEMU (`-kernel`, machines `pc` and `q35`). Every CPU counts primes in
//! short bursts, one burst for each tick of its local APIC timer: `cpu_loop` calls `do_round`, which calls
//! `count_primes`, which calls `is_prime`. Useful variables: `cpus[N]` (ticks, rounds and primes of the CPU with APIC
//! id N), `counter` (rounds of all CPUs), `cpus_online`, `int3_count`, `page_fault_count`.
//!
//! `scenario` selects what the first CPU does next. A debugger sets it (`set var scenario = SCENARIO_RESET`), or the
//! command line does, with one scenario for each boot: `scenario=reset,poweroff`. The names are `run`, `poweroff`,
//! `int3`, `pagefault`, `triplefault`, `reset`, `reset-kbd`, `spin`, `panic` and `modes`. `hz=N` sets the timer's
//! frequency (default 100).
//!
//! On the serial line, `q` powers the guest off, `r` resets the guest, and any other key prints a report.
#![forbid(unsafe_code)]

/// The contents of the ELF file.
pub const ELF: &[u8] = include_bytes!(env!("DEMO_GUEST_ELF"));

/// The path of the ELF file in the build folder, for tools that run in the checkout. The file may not exist where the
/// program runs.
pub const ELF_PATH: &str = env!("DEMO_GUEST_ELF");

/// The minimum RAM of the guest, in bytes. The boot counter at 8 MiB survives resets.
pub const MIN_MEMORY: u64 = 16 << 20;

/// The number of CPUs for which the guest has stacks. Further CPUs stay halted.
pub const MAX_CPUS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::ELF;
    use object::LittleEndian;
    use object::elf;
    use object::read::elf::ElfFile64;
    use object::read::elf::FileHeader as _;
    use object::read::elf::ProgramHeader as _;

    #[test]
    fn the_guest_has_a_pvh_note_that_names_its_entry() {
        let file = ElfFile64::<LittleEndian>::parse(ELF).expect("an ELF file");
        let mut notes = file
            .elf_program_headers()
            .iter()
            .find_map(|segment| segment.notes(LittleEndian, ELF).transpose())
            .expect("a note segment")
            .expect("a well-formed note segment");
        let note = notes.next().expect("well-formed").expect("a note");
        assert_eq!(note.name_bytes(), b"Xen\0");
        // XEN_ELFNOTE_PHYS32_ENTRY
        assert_eq!(note.n_type(LittleEndian), elf::NoteType(18));
        let entry = file.elf_header().e_entry(LittleEndian).to_le_bytes();
        assert_eq!(note.desc(), &entry[..4]);
    }

    #[test]
    fn the_guest_has_line_information_for_its_sources() {
        let find = |text: &[u8]| ELF.windows(text.len()).any(|window| window == text);
        for name in [".debug_line\0", ".debug_info\0", "main.c\0", "machine.c\0"] {
            assert!(find(name.as_bytes()), "{name}");
        }
    }
}
