//! A Bochs whose emulated CPU runs kvm-intel or kvm-amd, built from Debian's source package.
//!
//! The source has seven faults, which are repaired:
//!
//! - A VM entry, with VMX and with SVM, decides which interrupts are held before the CPU counts as in a guest. A cleared IF of the guest then holds interrupts that have to
//!   leave the guest ("external-interrupt exiting", Intel SDM volume 3, 26.2; "V_INTR_MASKING", AMD APM volume 2, 15.21.1). An outer kernel whose guest spins with IF=0
//!   hangs.
//! - With SVM, interrupts that were held before remain held in the guest. The host's interrupts have to get through there, as with VMX.
//! - An INT3 or INT n that a VM entry with SVM injects has to return to the next instruction, which the VMCB names (nRIP, AMD APM volume 2, 15.20). Without the repair the
//!   guest executes its INT3 again and again.
//! - With SVM, an intercepted #DB does not change DR6 and DR7, and the VMCB has to contain the values that the handler would see (AMD APM volume 2, 15.12.2). KVM would
//!   not learn the cause of the trap.
//! - A single-step trap or an interrupt shadow that waits for the end of the guest's instruction has to end when that instruction leaves the guest with SVM. Without the
//!   repair the outer kernel gets a #DB before it has loaded its own TR, which is a triple fault.
//! - A RAM image is read into memory as if the blocks of guest memory were adjacent.
//! - The clock selects the start of RDRAND. The seed has to select it, so that the same seed gives the same run.

mod firmware;
mod machine;
mod timing;

use super::source_edit;
use super::source_edit::Edit;
use super::source_edit::upstream;
use crate::cache::Cache;
use crate::debian::Apt;
use crate::process;
use crate::system_packages;
use anyhow::Context as _;
pub(super) use machine::BochsMachine;
pub(super) use machine::Cpu;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The Debian release with a Bochs that runs Linux's kvm-intel.
const SUITE: &str = "trixie";

/// The Debian packages that the build needs.
const BUILD_PACKAGES: &[&str] = &["g++", "make", "xz-utils"];

/// No screen, no disks, no debugger; all options that make Bochs fast, and CPUs with VMX and SVM.
const CONFIGURE: &[&str] = &[
    "--with-nogui",
    "--enable-x86-64",
    "--enable-cpu-level=6",
    "--enable-smp",
    "--enable-vmx=2",
    "--enable-svm",
    "--enable-avx",
    "--enable-evex",
    "--enable-cet",
    "--enable-protection-keys",
    "--enable-perfmon",
    "--enable-x86-debugger",
    "--enable-pci",
    "--enable-all-optimizations",
    "--disable-cdrom",
    "--disable-debugger",
    "--disable-debugger-gui",
    "--disable-docbook",
    "--disable-plugins",
    "--disable-readline",
];

const CXXFLAGS: &str = "-O3 -fomit-frame-pointer -pipe -w";

/// The environment variable that the repaired Bochs reads.
const RANDOM_SEED: &str = "TRAPGATE_BOCHS_SEED";

const EDITS: &[Edit] = &[
    Edit {
        file: "cpu/svm.cc",
        after: "BX_CPU_C::VMRUN(",
        find: "BX_CPU_THIS_PTR in_svm_guest = true;",
        replace: "BX_CPU_THIS_PTR in_svm_guest = true;\n  handleInterruptMaskChange();",
    },
    Edit {
        file: "cpu/flag_ctrl_pro.cc",
        after: "BX_CPU_C::handleInterruptMaskChange(",
        find: "mask_event(BX_EVENT_PENDING_INTR | BX_EVENT_PENDING_LAPIC_INTR | BX_EVENT_PENDING_UINTR);",
        // The guest's cleared IF masked the host's interrupts while the CPU did not yet count as in a guest.
        replace: "mask_event(BX_EVENT_PENDING_INTR | BX_EVENT_PENDING_LAPIC_INTR | BX_EVENT_PENDING_UINTR);
     else
       unmask_event(BX_EVENT_PENDING_INTR | BX_EVENT_PENDING_LAPIC_INTR);",
    },
    Edit {
        file: "cpu/svm.cc",
        after: "BX_CPU_C::SvmInterceptException(",
        find: "BX_CPU_THIS_PTR debug_trap = 0;",
        // As `exception()` does for a #DB that is not intercepted.
        replace: "if (vector == BX_DB_EXCEPTION) {
    Bit32u kept = BX_CPU_THIS_PTR dr6.get32() & 0xffff6ff0;
    BX_CPU_THIS_PTR dr6.set32(kept | (BX_CPU_THIS_PTR debug_trap & 0xe00f));
    BX_CPU_THIS_PTR dr7.set_GD(0);
  }
  BX_CPU_THIS_PTR debug_trap = 0;",
    },
    Edit {
        file: "cpu/svm.cc",
        after: "BX_CPU_C::SvmInjectEvents(",
        find: "ctrls->exitintinfo = ctrls->eventinj & ~0x80000000;",
        replace: "if ((type == BX_SOFTWARE_EXCEPTION || type == BX_SOFTWARE_INTERRUPT) && BX_SUPPORT_SVM_EXTENSION(BX_CPUID_SVM_NRIP_SAVE))
    RIP = vmcb_read64(SVM_CONTROL64_NRIP);
  ctrls->exitintinfo = ctrls->eventinj & ~0x80000000;",
    },
    Edit {
        file: "cpu/svm.cc",
        after: "BX_CPU_C::SvmExitLoadHostState(",
        find: "BX_CPU_THIS_PTR dr7.set32(0x00000400);",
        // As `VMexitLoadHostState()` does with VMX.
        replace: "BX_CPU_THIS_PTR dr7.set32(0x00000400);\n  BX_CPU_THIS_PTR debug_trap = 0;\n  BX_CPU_THIS_PTR inhibit_mask = 0;",
    },
    Edit {
        file: "cpu/vmx.cc",
        after: "BX_CPU_C::VMLAUNCH(",
        find: "BX_CPU_THIS_PTR in_vmx_guest = true;",
        replace: "BX_CPU_THIS_PTR in_vmx_guest = true;\n  handleInterruptMaskChange();",
    },
    Edit {
        file: "memory/misc_mem.cc",
        after: "BX_MEM_C::load_RAM(",
        find: "ret = read(fd, (bx_ptr_t) BX_MEM_THIS get_vector(offset), size);",
        // The smallest block is a page.
        replace: "unsigned long rest = 0x1000 - (offset & 0xfff);\n    ret = read(fd, (bx_ptr_t) BX_MEM_THIS get_vector(offset), rest < size ? rest : size);",
    },
    Edit {
        file: "cpu/init.cc",
        after: "BX_CPU_C::BX_CPU_C(",
        find: "srand(time(NULL));",
        replace: "const char *random_seed = getenv(\"TRAPGATE_BOCHS_SEED\");\n  srand(random_seed ? strtoul(random_seed, NULL, 10) : 1);",
    },
];

/// A built Bochs with its firmware.
#[derive(Clone)]
struct Bochs {
    folder: PathBuf,
}

impl Bochs {
    /// Takes Bochs from the cache, or builds it, which takes a few minutes.
    fn provide(cache: &Cache) -> anyhow::Result<Self> {
        let recipe =
            format!("{SUITE} {CXXFLAGS} {}", CONFIGURE.join(" ")) + &source_edit::recipe(EDITS);
        let log = cache.root().join("bochs-build.log");
        let folder = cache.artefact("bochs", &recipe, |folder| {
            system_packages::ensure(
                BUILD_PACKAGES,
                "build Bochs for the nested bed (once, then cached)",
            )?;
            build(&Apt::of_suite(cache.root(), SUITE)?, folder, &log)
        })?;
        Ok(Self { folder })
    }

    fn program(&self) -> PathBuf {
        self.folder.join("bochs")
    }

    fn bios(&self) -> PathBuf {
        self.folder.join("bios.bin")
    }

    fn vga_bios(&self) -> PathBuf {
        self.folder.join("vgabios.bin")
    }
}

fn build(apt: &Apt, folder: &Path, log: &Path) -> anyhow::Result<String> {
    let version = apt.source_version("bochs", |_| true)?;
    let tree = folder.join("tree");
    let packages = folder.join("packages");
    std::fs::create_dir_all(&tree)?;
    std::fs::create_dir_all(&packages)?;
    let tarball = apt.source_tarball("bochs", &version, &tree)?;
    let _ = std::fs::remove_file(log);
    process::run_logged(
        Command::new("tar")
            .args(["--extract", "--strip-components=1", "--file"])
            .arg(&tarball)
            .arg("--directory")
            .arg(&tree),
        log,
    )?;
    source_edit::apply(EDITS, &tree, "Bochs")?;
    println!(
        "nested: building Bochs {version} (some minutes, once; log: {})",
        log.display()
    );
    process::run_logged(
        Command::new("./configure")
            .args(CONFIGURE)
            .env("CXXFLAGS", CXXFLAGS)
            .env("CFLAGS", "-O2 -pipe -w")
            .current_dir(&tree),
        log,
    )?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    process::run_logged(
        Command::new("make")
            .arg(format!("-j{jobs}"))
            .arg("bochs")
            .current_dir(&tree),
        log,
    )?;
    process::run_logged(
        Command::new("strip")
            .arg("-o")
            .arg(folder.join("bochs"))
            .arg(tree.join("bochs")),
        log,
    )?;

    for package in ["bochsbios", "vgabios"] {
        apt.unpack(package, &packages)?;
    }
    for (from, to) in [
        ("usr/share/bochs/BIOS-bochs-latest", "bios.bin"),
        ("usr/share/vgabios/vgabios.bin", "vgabios.bin"),
    ] {
        std::fs::copy(packages.join(from), folder.join(to))
            .with_context(|| format!("Debian's package has no {from}"))?;
    }
    std::fs::remove_dir_all(&tree)?;
    std::fs::remove_dir_all(&packages)?;
    Ok(upstream(&version).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_read_from_the_variable_that_is_set() {
        let name = format!("\"{RANDOM_SEED}\"");
        assert_eq!(
            EDITS
                .iter()
                .filter(|edit| edit.replace.contains(&name))
                .count(),
            1
        );
    }

    #[test]
    fn the_hosts_interrupts_are_let_through_in_a_guest_of_svm_that_has_cleared_if() {
        let text = "void BX_CPU_C::handleInterruptMaskChange(void)\n{\n  if (in_svm_guest) {\n     if (! SVM_HOST_IF)\n       \
                    mask_event(BX_EVENT_PENDING_INTR | BX_EVENT_PENDING_LAPIC_INTR | BX_EVENT_PENDING_UINTR);\n\n     \
                    mask_event(BX_EVENT_SVM_VIRQ_PENDING);\n  }\n}\n";
        let edit = EDITS
            .iter()
            .find(|edit| edit.file == "cpu/flag_ctrl_pro.cc");
        let edited = edit.unwrap().edited(text).unwrap();
        let (_, otherwise) = edited.split_once("else").unwrap();
        assert!(otherwise.trim().starts_with("unmask_event("), "{edited}");
    }

    #[test]
    fn the_interrupt_mask_is_computed_once_the_cpu_is_in_the_guest() {
        let text = "void BX_CPU_C::VMLAUNCH(i)\n{\n  BX_CPU_THIS_PTR in_vmx_guest = true;\n\n  unmask_event(BX_EVENT_INIT);\n}\n";
        let edit = EDITS.iter().find(|edit| edit.file == "cpu/vmx.cc");
        let edited = edit.unwrap().edited(text).unwrap();
        let position = |what| edited.find(what).unwrap();
        assert!(position("in_vmx_guest = true") < position("handleInterruptMaskChange()"));
    }
}
