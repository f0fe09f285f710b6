//! A QEMU whose emulated CPU runs kvm-amd, built from Debian's source package.
//!
//! Its x86 emulator has four faults, which are repaired:
//!
//! - If a guest inside a guest executes the one-byte `INT3`, hardware checks the intercept of the #BP exception (AMD APM volume 2, "INT3 Intercept": `INT3` is intercepted
//!   as exception vector 3). QEMU 10 and 11 check the software-interrupt intercept, which belongs to `INT n`, so KVM never gets a software breakpoint.
//! - `VMRUN` with a pending virtual interrupt adds it to the CPU's pending interrupts without QEMU's lock. If another thread adds a timer interrupt at the same moment, the
//!   timer interrupt is lost. The local APIC requests it only once, so the outer kernel gets no timer interrupt while the guest runs.
//! - When a CPU restores x87 state, QEMU writes `hflags2` of the *first* CPU, which says whether that CPU has nested paging and global interrupts on. With two CPUs, one of
//!   which enters and leaves a guest, a change is sometimes lost. The registers of the outer kernel then become the guest's, and one of them ends in a triple fault.
//! - A hardware interrupt pushes RFLAGS with RF set, as a fault does. Hardware pushes the flag as it is (SDM volume 3, "Instruction-Breakpoint Exception Condition"). If the
//!   interrupt arrives at an instruction with an execution breakpoint, the handler then returns to this instruction with RF set, and the breakpoint does not fire. A program
//!   with nothing but KVM calls lost 17 of 1,083,512 hits so, and the pushed RF was set at each of them that was looked at.
//!
//! The same program serves as the VMM with which Trapgate is compared.

use super::source_edit;
use super::source_edit::Edit;
use super::source_edit::upstream;
use crate::cache::Cache;
use crate::debian::Apt;
use crate::process;
use crate::system_packages;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The Debian packages that the build needs.
const BUILD_PACKAGES: &[&str] = &[
    "gcc",
    "libc6-dev",
    "libfdt-dev",
    "libglib2.0-dev",
    "ninja-build",
    "pkgconf",
    "python3",
    "python3-venv",
    "xz-utils",
    "zlib1g-dev",
];

/// Only the parts that the bed uses, in one static file.
const CONFIGURE: &[&str] = &[
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--enable-tcg",
    "--enable-kvm",
    "--static",
    "--disable-docs",
    "--disable-install-blobs",
    "--disable-debug-info",
    "--disable-download",
    "--python=/usr/bin/python3",
];

const EXCEPTION_SOURCE: &str = "target/i386/tcg/excp_helper.c";
const INTERRUPT_SOURCE: &str = "target/i386/tcg/seg_helper.c";
const SVM_SOURCE: &str = "target/i386/tcg/system/svm_helper.c";
const FPU_SOURCE: &str = "target/i386/tcg/system/fpu_helper.c";

const EDITS: &[Edit] = &[
    Edit {
        file: EXCEPTION_SOURCE,
        after: "void raise_interrupt2(",
        find: "SVM_EXIT_SWINT",
        // Vector 3 with a length of one byte is INT3. `INT 3` (CD 03) has two bytes and does not change.
        replace: "intno == 3 && next_eip_addend == 1 ? SVM_EXIT_EXCP_BASE + 3 : SVM_EXIT_SWINT",
    },
    Edit {
        file: SVM_SOURCE,
        after: "",
        find: "#include \"cpu.h\"",
        replace: "#include \"cpu.h\"\n#include \"qemu/main-loop.h\"",
    },
    Edit {
        file: SVM_SOURCE,
        after: "void helper_vmrun(",
        find: "cs->interrupt_request |= CPU_INTERRUPT_VIRQ;",
        replace: "bql_lock(); cs->interrupt_request |= CPU_INTERRUPT_VIRQ; bql_unlock();",
    },
    Edit {
        file: INTERRUPT_SOURCE,
        after: "static void do_interrupt_protected(",
        find: "set_rf = exception_is_fault(intno);",
        replace: "set_rf = !is_hw && exception_is_fault(intno);",
    },
    Edit {
        file: INTERRUPT_SOURCE,
        after: "static void do_interrupt64(",
        find: "set_rf = exception_is_fault(intno);",
        replace: "set_rf = !is_hw && exception_is_fault(intno);",
    },
    // Only a write to port F0 sets this bit, so nothing has to be written here.
    Edit {
        file: FPU_SOURCE,
        after: "void cpu_clear_ignne(",
        find: "env->hflags2 &= ~HF2_IGNNE_MASK;",
        replace: "if (env->hflags2 & HF2_IGNNE_MASK) { env->hflags2 &= ~HF2_IGNNE_MASK; }",
    },
    // Debian's tarball comes without firmware images, so there is nothing to unpack.
    Edit {
        file: "meson.build",
        after: "",
        find: "unpack_edk2_blobs = bzip2.found()",
        replace: "unpack_edk2_blobs = false",
    },
    // A Python module that only QEMU's own tests use.
    Edit {
        file: "pythondeps.toml",
        after: "[meson]",
        find: "pycotap = {",
        replace: "# pycotap = {",
    },
];

/// A built QEMU.
#[derive(Clone)]
pub(crate) struct Qemu {
    folder: PathBuf,
}

impl Qemu {
    /// Takes QEMU from the cache, or builds it, which takes a few minutes.
    pub(crate) fn provide(cache: &Cache) -> anyhow::Result<Self> {
        let recipe = CONFIGURE.join(" ") + &source_edit::recipe(EDITS);
        let log = cache.root().join("qemu-build.log");
        let folder = cache.artefact("qemu", &recipe, |folder| {
            system_packages::ensure(
                BUILD_PACKAGES,
                "build QEMU for the nested bed (once, then cached)",
            )?;
            build(&Apt::open(cache.root())?, folder, &log)
        })?;
        Ok(Self { folder })
    }

    /// A QEMU that was copied with its folder.
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The path for [`Self::at`].
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// `qemu-system-x86_64` with the path of its firmware.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        command.arg("-L").arg(self.firmware());
        command
    }

    /// The program file.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("qemu-system-x86_64")
    }

    /// The folder for QEMU's option `-L`.
    pub(crate) fn firmware(&self) -> PathBuf {
        self.folder.join("firmware")
    }
}

fn build(apt: &Apt, folder: &Path, log: &Path) -> anyhow::Result<String> {
    let version = apt.source_version("qemu", |version| {
        // Older versions do not load DR7 into a nested guest.
        major(version).is_some_and(|major| major >= 10)
    })?;
    let tree = folder.join("tree");
    let tools = folder.join("tools");
    std::fs::create_dir_all(&tree)?;
    let tarball = apt.source_tarball("qemu", &version, &tree)?;
    let _ = std::fs::remove_file(log);
    process::run_logged(
        Command::new("tar")
            .args(["--extract", "--strip-components=1", "--file"])
            .arg(&tarball)
            .arg("--directory")
            .arg(&tree),
        log,
    )?;
    source_edit::apply(EDITS, &tree, "QEMU")?;

    // Debian 12's Meson is too old for QEMU 10. Meson is a Python program and runs from the folder where it was unpacked.
    let (meson, _) = apt.version("meson", |_| true)?;
    let meson = newest_meson(apt, meson)?;
    apt.unpack(&format!("meson={meson}"), &tools)?;
    let python_path = tools.join("usr/lib/python3/dist-packages");
    let objects = tree.join("build");
    std::fs::create_dir_all(&objects)?;
    println!(
        "nested: building QEMU {version} (some minutes, once; log: {})",
        log.display()
    );
    process::run_logged(
        Command::new("../configure")
            .args(CONFIGURE)
            .env("PYTHONPATH", &python_path)
            .current_dir(&objects),
        log,
    )?;
    process::run_logged(
        Command::new("ninja")
            .arg("qemu-system-x86_64")
            .env("PYTHONPATH", &python_path)
            .current_dir(&objects),
        log,
    )?;
    std::fs::rename(
        objects.join("qemu-system-x86_64"),
        folder.join("qemu-system-x86_64"),
    )?;

    let firmware = folder.join("firmware");
    std::fs::create_dir_all(&firmware)?;
    for package in ["seabios", "qemu-system-data"] {
        apt.unpack(package, &tools)?;
    }
    for from in ["usr/share/seabios", "usr/share/qemu"] {
        for entry in std::fs::read_dir(tools.join(from))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "bin") {
                std::fs::copy(
                    &path,
                    firmware.join(path.file_name().expect("it has an extension")),
                )?;
            }
        }
    }
    std::fs::remove_dir_all(&tree)?;
    std::fs::remove_dir_all(&tools)?;
    Ok(upstream(&version).to_owned())
}

/// Meson 1.5 or later. `first` is the version that apt prefers.
fn newest_meson(apt: &Apt, first: String) -> anyhow::Result<String> {
    let recent = |version: &str| {
        let mut parts = version
            .split(['.', '-'])
            .map(|part| part.parse::<u32>().unwrap_or(0));
        (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        ) >= (1, 5)
    };
    if recent(&first) {
        return Ok(first);
    }
    Ok(apt.version("meson", recent)?.0)
}

fn major(version: &str) -> Option<u32> {
    upstream(version).split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edit_changes_the_one_function_only() {
        let text = "void other(void)\n{\n    f(SVM_EXIT_SWINT);\n}\nvoid raise_interrupt2(int intno)\n{\n    f(SVM_EXIT_SWINT);\n}\n";
        let edited = EDITS[0].edited(text).unwrap();
        assert_eq!(edited.matches(EDITS[0].replace).count(), 1);
        assert!(edited.starts_with("void other(void)\n{\n    f(SVM_EXIT_SWINT);\n}\n"));
    }

    #[test]
    fn the_upstream_version_is_cut_out_of_debians() {
        assert_eq!(upstream("1:10.0.2+ds-2+deb13u1~bpo12+1"), "10.0.2");
        assert_eq!(major("1:7.2+dfsg-7+deb12u18"), Some(7));
    }
}
