//! Builds a guest's ELF with the C compiler of the host, for build scripts. No library is linked in; the guest's linker script does the rest.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// What any bare x86-64 guest needs: no library, no start files, a fixed address, and no note or page of the linker's own.
const FLAGS: [&str; 8] = [
    "-m64",
    "-g",
    "-static",
    "-nostdlib",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
];

/// Builds `guest/SOURCES` with `guest/linker.ld` of the package whose build script calls it into `OUT_DIR/ELF`, and has cargo set `variable`
/// to the path of that file for the package's code.
///
/// Where that cannot be done, it tells cargo why and what to do, and ends the build script.
pub fn build(elf: &str, variable: &str, sources: &[&str], flags: &[&str]) {
    let guest = PathBuf::from(env("CARGO_MANIFEST_DIR")).join("guest");
    let elf = PathBuf::from(env("OUT_DIR")).join(elf);
    println!("cargo::rerun-if-changed=guest");
    println!("cargo::rustc-env={variable}={}", elf.display());
    if let Err(why) = compile(&guest, &elf, sources, flags) {
        fail(&why);
    }
}

fn compile(guest: &Path, elf: &Path, sources: &[&str], flags: &[&str]) -> Result<(), String> {
    let mut cc = cc::Build::new();
    cc.no_default_flags(true).cargo_warnings(false);
    let compiler = cc
        .try_get_compiler()
        .map_err(|err| format!("no C compiler: {err}; install gcc or clang, or set CC"))?;
    let mut command: Command = compiler.to_command();
    command
        .args(FLAGS)
        .args(flags)
        .arg("-T")
        .arg(guest.join("linker.ld"))
        .args(sources.iter().map(|name| guest.join(name)))
        .arg("-o")
        .arg(elf);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(
            "{command:?} failed: {status}; gcc 8 or clang 10 and a GNU-compatible x86-64 assembler and linker are needed"
        )),
        Err(err) => Err(format!(
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
