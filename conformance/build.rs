//! Assembles the guest of the tests that boot a VMM, with the C compiler of the host.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let guest = PathBuf::from(env("CARGO_MANIFEST_DIR")).join("guest");
    let elf = PathBuf::from(env("OUT_DIR")).join("ticking.elf");
    println!("cargo::rerun-if-changed=guest");
    println!("cargo::rustc-env=TICKING_ELF={}", elf.display());

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
        .args(["-m64", "-g", "-static", "-nostdlib", "-no-pie"])
        .args([
            "-Wl,--build-id=none",
            "-Wl,-z,max-page-size=4096",
            "-Wl,-z,noexecstack",
        ])
        .arg("-T")
        .arg(guest.join("linker.ld"))
        .arg(guest.join("ticking.S"))
        .arg("-o")
        .arg(&elf);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "{command:?} failed: {status}; a GNU-compatible x86-64 assembler and linker are needed"
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
    println!("cargo::error=the guest cannot be built: {why}");
    std::process::exit(1)
}
