//! Builds the demo guest with the C compiler of the host. No library is linked in; the linker script does the rest.

use std::path::PathBuf;
use std::process::Command;

const SOURCES: [&str; 3] = ["boot.S", "main.c", "machine.c"];
const OTHERS: [&str; 2] = ["demo.h", "linker.ld"];

const FLAGS: &[&str] = &[
    "-m64",
    "-std=gnu11",
    // Good line tables, locals and backtraces before speed.
    "-Og",
    "-g",
    "-gdwarf-4",
    "-fno-omit-frame-pointer",
    // A kernel: no library, no start files, fixed address, no red zone for interrupts to overwrite.
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pic",
    "-fno-pie",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mno-red-zone",
    "-mcmodel=small",
    // Some hosts run the guest in KVM's instruction emulator, which has no vector instructions.
    "-mgeneral-regs-only",
    "-Wall",
    "-Wextra",
    "-static",
    "-nostdlib",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
];

fn main() {
    let guest = PathBuf::from(env("CARGO_MANIFEST_DIR")).join("guest");
    let elf = PathBuf::from(env("OUT_DIR")).join("demo-guest.elf");

    for name in SOURCES.iter().chain(&OTHERS) {
        println!("cargo::rerun-if-changed=guest/{name}");
    }
    println!("cargo::rustc-env=DEMO_GUEST_ELF={}", elf.display());

    let mut cc = cc::Build::new();
    cc.no_default_flags(true).cargo_warnings(false);
    let compiler = match cc.try_get_compiler() {
        Ok(compiler) => compiler,
        Err(err) => fail(&format!(
            "no C compiler: {err}; install gcc or clang, or set CC"
        )),
    };
    let mut command: Command = compiler.to_command();
    command
        .args(FLAGS)
        .arg("-T")
        .arg(guest.join("linker.ld"))
        .args(SOURCES.map(|name| guest.join(name)))
        .arg("-o")
        .arg(&elf);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "{command:?} failed: {status}; gcc 8 or clang 10 and a GNU-compatible x86-64 linker are needed"
        )),
        Err(err) => fail(&format!(
            "cannot run {command:?}: {err}; install gcc or clang, or set CC"
        )),
    }
}

fn env(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| fail(&format!("{name} is not set: run this through cargo")))
}

fn fail(why: &str) -> ! {
    println!("cargo::error=the demo guest cannot be built: {why}");
    std::process::exit(1)
}
