//! A Linux guest for tests: the kernel image of the outer machine, a small initramfs, and the kernel's symbols.
//!
//! The initramfs prints `trapgate-init: up` when it runs. With `trapgate.disk` on the kernel's command line it first mounts the virtio disk, prints `trapgate-init: disk`, and
//! runs the same program there. A word of the kernel's command line selects the next action:
//!
//! | word | action |
//! |---|---|
//! | `trapgate.poweroff`, `trapgate.reboot` | power-off or reboot, at once |
//! | `trapgate.panic` | loads the drivers of the panic device, and causes a kernel panic by `sysrq-trigger` |
//! | `trapgate.calls` | rounds of system calls with known results; a line for each call with the number of calls (`linux_guest/calls.c`) |
//! | `trapgate.traps` | rounds of a process that traps itself and another process by `ptrace`; a line for each round (`linux_guest/traps.c`) |
//! | `trapgate.clocks` | rounds of reads of the clocks; a line for each round (`linux_guest/clocks.c`) |
//! | none | system calls (open, read and close of `/proc/uptime`), and `trapgate-init: tick N` about every second |

use super::boot::Collected;
use super::boot::Outcome;
use super::boot::boot;
use super::cpio::Archive;
use super::kernel::GUEST_MODULES;
use super::kernel::Kernel;
use super::machine::Machine;
use super::machine::Mark;
use super::machine::Plan;
use super::machine::RUN_FILE;
use super::root_image::RootImage;
use super::scratch::Scratch;
use crate::cache::Cache;
use crate::process;
use anyhow::bail;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys
if [ ! -e /on-disk ] && grep -q trapgate.disk /proc/cmdline; then
    mount -t devtmpfs dev /dev
    insmod /lib/virtio_blk.ko
    mount -t ext4 /dev/vda /disk && echo "trapgate-init: disk"
    umount /sys; umount /proc
    exec switch_root /disk /init
fi
echo "trapgate-init: up"
for word in $(cat /proc/cmdline); do
    case $word in
    trapgate.poweroff) poweroff -f;;
    trapgate.reboot) reboot -f;;
    trapgate.panic)
        insmod /lib/pvpanic.ko; insmod /lib/pvpanic-mmio.ko
        echo c > /proc/sysrq-trigger;;
    trapgate.calls | trapgate.clocks | trapgate.traps) exercise ${word#*.};;
    esac
done
tick=0 last=
while :; do
    read up idle < /proc/uptime
    if [ "${up%.*}" != "$last" ]; then
        last=${up%.*} tick=$((tick + 1))
        echo "trapgate-init: tick $tick"
    fi
done
"#;

/// The programs of the guest's processes. Each file describes its program.
const EXERCISE: &[(&str, &str)] = &[
    ("calls.h", include_str!("linux_guest/calls.h")),
    ("exercise.c", include_str!("linux_guest/exercise.c")),
    ("calls.c", include_str!("linux_guest/calls.c")),
    ("clocks.c", include_str!("linux_guest/clocks.c")),
    ("traps.c", include_str!("linux_guest/traps.c")),
];

/// The artefacts in the cache.
pub(super) struct LinuxGuest {
    folder: PathBuf,
    image: PathBuf,
}

/// The module for the disk.
const DISK_MODULE: &str = "virtio_blk";
const DISK_SIZE: &str = "8m";

impl LinuxGuest {
    /// Takes the guest from the cache. If it is missing, boots the bed once to read the symbols.
    pub(super) fn provide(
        cache: &Cache,
        machine: &dyn Machine,
        kernel: &Kernel,
    ) -> anyhow::Result<Self> {
        let mut recipe = format!("{}\n{INIT}{DISK_MODULE}{DISK_SIZE}", kernel.identity());
        for (_, source) in EXERCISE {
            recipe.push_str(source);
        }
        let folder = cache.artefact("linux-guest", &recipe, |folder| {
            println!("nested: making the Linux guest for tests");
            initramfs(kernel, folder)?.write(&folder.join("initrd.cpio"))?;
            disk(kernel, folder)?;
            std::fs::write(folder.join("symbols"), symbols(machine, kernel)?)?;
            Ok(kernel.identity())
        })?;
        Ok(Self {
            folder,
            image: kernel.image(),
        })
    }

    /// The variables by which tests find the files.
    pub(super) fn environment(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("TRAPGATE_TEST_LINUX_KERNEL", self.image.clone()),
            (
                "TRAPGATE_TEST_LINUX_INITRD",
                self.folder.join("initrd.cpio"),
            ),
            ("TRAPGATE_TEST_LINUX_DISK", self.folder.join("disk.img")),
            ("TRAPGATE_TEST_LINUX_SYMS", self.folder.join("symbols")),
        ]
    }
}

fn initramfs(kernel: &Kernel, folder: &Path) -> anyhow::Result<Archive> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "disk", "lib", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    archive.program("bin/exercise", &exercise(folder)?);
    archive.program("bin/busybox", &std::fs::read(kernel.busybox())?);
    for name in GUEST_MODULES.iter().chain([&DISK_MODULE]) {
        let module = std::fs::read(kernel.module(name))?;
        archive.program(&format!("lib/{name}.ko"), &module);
    }
    archive.program("init", INIT.as_bytes());
    Ok(archive)
}

/// Makes a file system with the same init, without the exercises.
fn disk(kernel: &Kernel, folder: &Path) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let root = scratch.path().join("disk");
    for folder in ["bin", "dev", "lib", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::copy(kernel.busybox(), root.join("bin/busybox"))?;
    std::fs::write(root.join("on-disk"), "")?;
    let init = root.join("init");
    std::fs::write(&init, INIT)?;
    for program in [init, root.join("bin/busybox")] {
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    }
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"]);
    mke2fs
        .arg(&root)
        .arg(folder.join("disk.img"))
        .arg(DISK_SIZE);
    process::capture(&mut mke2fs)?;
    Ok(())
}

/// Compiles and links a program without shared libraries, because the guest has none.
fn exercise(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let scratch = folder.join("exercise");
    std::fs::create_dir(&scratch)?;
    for (name, source) in EXERCISE {
        std::fs::write(scratch.join(name), source)?;
    }
    let program = scratch.join("exercise");
    // The program prints addresses that must be those of its file: no `-pie`.
    process::capture(
        Command::new("cc")
            .args(["-O1", "-static", "-no-pie", "-Wall", "-Werror", "-o"])
            .arg(&program)
            .args(
                EXERCISE
                    .iter()
                    .map(|(name, _)| scratch.join(name))
                    .filter(|path| path.extension().is_some_and(|extension| extension == "c")),
            ),
    )?;
    let bytes = std::fs::read(program)?;
    std::fs::remove_dir_all(&scratch)?;
    Ok(bytes)
}

/// The symbols of the kernel (without modules) at the addresses for which it is linked. They are read in the bed, which runs the same kernel.
fn symbols(machine: &dyn Machine, kernel: &Kernel) -> anyhow::Result<Vec<u8>> {
    let scratch = Scratch::new()?;
    let mut image = RootImage::new(&scratch.path().join("root"))?;
    image.busybox(&kernel.busybox())?;
    image.write(RUN_FILE, "exec cat /proc/kallsyms\n")?;
    let collected = Collected::default();
    let plan = Plan {
        scratch: scratch.path(),
        cmdline: "nokaslr",
        cpus: super::OUTER_CPUS,
        memory_mib: 1024,
        timeout: Duration::from_secs(900),
        seed: 0,
        mark: Mark::of([OsStr::new(RUN_FILE)], 0),
    };
    machine.prepare(image, &plan)?;
    let ended = boot(
        machine,
        &plan,
        Box::new(collected.clone()),
        Box::new(std::io::stderr()),
    )?;
    let Outcome::Exited(0) = ended.outcome else {
        bail!(
            "cannot read the kernel's symbols in the bed: {:?}",
            ended.outcome
        );
    };
    let text = String::from_utf8_lossy(&collected.take()).into_owned();
    let symbols: String = text
        .lines()
        .filter(|line| !line.ends_with(']'))
        .map(|line| format!("{line}\n"))
        .collect();
    let known = symbols
        .lines()
        .find(|line| line.ends_with(" start_kernel"))
        .unwrap_or_default();
    if known.is_empty() || known.starts_with("0000000000000000") {
        bail!("the bed's /proc/kallsyms shows no address of start_kernel (`{known}`)");
    }
    Ok(symbols.into_bytes())
}
