//! Assembles the guest of the tests that boot a VMM.

fn main() {
    guest_build::build("ticking.elf", "TICKING_ELF", &["ticking.S"], &[]);
}
