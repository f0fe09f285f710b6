use super::*;
use crate::kernel::Kernel;
use proptest::prelude::*;

/// The header of a bzImage without any contents.
fn bzimage() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x1f1, &[1]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &BzImageFacts::XLF_KERNEL_64.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &0x100_0000_u64.to_le_bytes());
    put(0x260, &0x300_0000_u32.to_le_bytes());
    bytes
}

/// The reason why `bytes` with `change` at `at` is refused.
fn refusal(mut bytes: Vec<u8>, at: usize, change: &[u8]) -> String {
    bytes[at..at + change.len()].copy_from_slice(change);
    Kernel::new(bytes)
        .err()
        .unwrap_or_else(|| "accepted".to_owned())
}

#[test]
fn the_demo_guest_is_a_kernel_with_a_pvh_entry() {
    let facts = ElfFacts::new(demo_guest::ELF).expect("a kernel");
    assert_eq!(facts.pvh_entry, Some(0x10_0000));
    assert!(facts.end() > 0x10_0000);
    let zeroes: u64 = facts.zeroes().map(|range| range.end - range.start).sum();
    assert!(zeroes >= 64 * 4096, "the stacks are in no file");
}

#[test]
fn a_bzimage_says_how_much_memory_it_unpacks_into() {
    let facts = BzImageFacts::new(&bzimage())
        .expect("bootable")
        .expect("a bzImage");
    assert_eq!(
        (facts.end, facts.initrd_limit, facts.command_line_limit),
        (0x400_0000, 0x8000_0000, 2047)
    );
}

#[test]
fn what_cannot_be_booted_is_refused_with_the_reason() {
    let elf = || demo_guest::ELF.to_vec();
    for (bytes, at, change, reason) in [
        (
            vec![0; 4096],
            0,
            &b"MZ"[..],
            "neither an ELF file nor a bzImage",
        ),
        (elf(), 4, &[1], "not a 64-bit"),
        (elf(), 18, &[183, 0], "another architecture"),
        (elf(), 16, &[3, 0], "no fixed address"),
        (elf(), 54, &[32, 0], "unknown size"),
        (elf(), 32, &[0xff; 8], "within its headers"),
        (elf(), 56, &[0, 0], "in none of its segments"),
        (bzimage(), 0x206, &[0x0b, 2], "before Linux 3.8"),
        (bzimage(), 0x236, &[0, 0], "32-bit Linux"),
        (bzimage(), 0x258, &[0xff; 8], "wraps"),
    ] {
        let said = refusal(bytes, at, change);
        assert!(said.contains(reason), "{reason}: {said}");
    }
    let cut = Kernel::new(bzimage()[..0x210].to_vec()).err();
    assert!(cut.is_some_and(|said| said.contains("within its header")));
}

#[test]
fn a_program_is_not_taken_for_a_kernel() {
    let program = std::fs::read("/proc/self/exe").expect("this test's own file");
    assert!(Kernel::new(program).is_err());
    // A program that is linked for a fixed address: the demo guest without its note.
    let note = demo_guest::ELF
        .windows(4)
        .position(|bytes| bytes == b"Xen\0")
        .expect("a note");
    let said = refusal(demo_guest::ELF.to_vec(), note, b"Zen\0");
    assert!(said.contains("no PVH note"), "{said}");
}

#[test]
fn the_note_is_found_behind_others() {
    let mut notes = Vec::new();
    for (name, kind, descriptor) in [
        (&b"GNU\0"[..], 18_u32, 7_u32),
        (b"Xen\0", 5, 8),
        (b"Xen\0", 18, 9),
    ] {
        notes.extend([4_u32, 4, kind].map(u32::to_le_bytes).concat());
        notes.extend(name);
        notes.extend(descriptor.to_le_bytes());
    }
    assert_eq!(find_pvh_entry(&notes), Some(9));
    assert_eq!(find_pvh_entry(&notes[..notes.len() - 1]), None);
    assert_eq!(find_pvh_entry(&[0xff; 12]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A damaged file does not make the loader panic, or write beyond the memory that it needs.
    #[test]
    fn damaged_files_are_loaded_or_refused(
        at in 0..0x2080_usize,
        value in prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff_u8]),
        len in 1..9_usize,
        image in any::<bool>(),
    ) {
        let mut bytes = if image { bzimage() } else { demo_guest::ELF.to_vec() };
        let at = if at < 0x200 || image { at % 0x270 } else { at };
        bytes[at..at + len].fill(value);
        if let Ok(kernel) = Kernel::new(bytes) {
            kernel.load_for_test();
        }
    }
}
