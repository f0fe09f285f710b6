//! Builds the ELF file of a guest with the host's C compiler, for build scripts. No library is linked; the guest's
//! linker script defines the layout.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The flags for every bare x86-64 guest: no library, no start files, a fixed address, and no note or page that the
/// linker adds.
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

/// Builds `guest/SOURCES` with `guest/linker.ld` of the calling package into `OUT_DIR/ELF`. Sets the environment
/// variable `variable` to the path of that file when cargo compiles the package.
///
/// If the build fails, the function reports the reason and the remedy to cargo, and ends the build script.
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
            "{command:?} failed: {status}; install gcc 8 or clang 10, or newer, with a GNU-compatible x86-64 assembler and linker"
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
