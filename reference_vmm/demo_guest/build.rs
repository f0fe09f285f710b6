//! Builds the demo guest.

const FLAGS: [&str; 13] = [
    "-std=gnu11",
    // Complete line tables, locals and backtraces are more important than speed.
    "-Og",
    "-gdwarf-4",
    "-fno-omit-frame-pointer",
    // Kernel code: interrupts would overwrite a red zone.
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pic",
    "-fno-pie",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mno-red-zone",
    "-mcmodel=small",
    // Some hosts run the guest in KVM's instruction emulator, which does not support vector instructions.
    "-mgeneral-regs-only",
];
const WARNINGS: [&str; 2] = ["-Wall", "-Wextra"];

fn main() {
    let sources = ["boot.S", "main.c", "machine.c"];
    let flags = [&FLAGS[..], &WARNINGS].concat();
    guest_build::build("demo-guest.elf", "DEMO_GUEST_ELF", &sources, &flags);
}
