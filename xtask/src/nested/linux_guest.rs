//! A Linux guest for tests: the bed's own kernel image, a tiny initramfs, and the kernel's symbols.
//!
//! The initramfs prints `trapgate-init: up` when it runs, powers off at once where the command line has the word `trapgate.poweroff`, and
//! otherwise loops with system calls (open, read, close of `/proc/uptime`) and prints `trapgate-init: tick N` about each second.

use super::Scratch;
use super::boot::Collected;
use super::boot::Machine;
use super::boot::Outcome;
use super::boot::RUN_FILE;
use super::cache::Cache;
use super::cpio::Archive;
use super::kernel::Kernel;
use super::qemu::Qemu;
use super::root_image::RootImage;
use anyhow::bail;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys
echo "trapgate-init: up"
case " $(cat /proc/cmdline) " in *" trapgate.poweroff "*) poweroff -f;; esac
tick=0 last=
while :; do
    read up idle < /proc/uptime
    if [ "${up%.*}" != "$last" ]; then
        last=${up%.*} tick=$((tick + 1))
        echo "trapgate-init: tick $tick"
    fi
done
"#;

/// The artefacts in the cache.
pub struct LinuxGuest {
    folder: PathBuf,
    image: PathBuf,
}

impl LinuxGuest {
    /// From the cache; otherwise the bed is booted once to read the symbols.
    pub fn provide(cache: &Cache, qemu: &Qemu, kernel: &Kernel) -> anyhow::Result<Self> {
        let recipe = format!("{}\n{INIT}", kernel.identity());
        let folder = cache.artefact("linux-guest", &recipe, |folder| {
            println!("nested: making the Linux guest for tests");
            initramfs(kernel)?.write(&folder.join("initrd.cpio"))?;
            std::fs::write(folder.join("symbols"), symbols(qemu, kernel)?)?;
            Ok(kernel.identity())
        })?;
        Ok(Self {
            folder,
            image: kernel.image(),
        })
    }

    /// The variables through which tests find the files.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("TRAPGATE_TEST_LINUX_KERNEL", self.image.clone()),
            (
                "TRAPGATE_TEST_LINUX_INITRD",
                self.folder.join("initrd.cpio"),
            ),
            ("TRAPGATE_TEST_LINUX_SYMS", self.folder.join("symbols")),
        ]
    }
}

fn initramfs(kernel: &Kernel) -> anyhow::Result<Archive> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys"] {
        archive.folder(folder);
    }
    archive.program("bin/busybox", &std::fs::read(kernel.busybox())?);
    archive.program("init", INIT.as_bytes());
    Ok(archive)
}

/// The symbols of the kernel proper (no modules) at the addresses it is linked for: read from the bed, which runs the same kernel.
fn symbols(qemu: &Qemu, kernel: &Kernel) -> anyhow::Result<Vec<u8>> {
    let scratch = Scratch::new()?;
    let mut image = RootImage::new(&scratch.path.join("root"))?;
    image.busybox(&kernel.busybox())?;
    image.write(RUN_FILE, "exec cat /proc/kallsyms\n")?;
    let root = scratch.path.join("root.ext4");
    image.make(&root)?;
    let collected = Collected::default();
    let outcome = Machine {
        qemu,
        kernel,
        root: Path::new(&root),
        scratch: &scratch.path,
        cmdline: "nokaslr",
        cpus: 2,
        memory_mib: 1024,
        timeout: Duration::from_secs(120),
    }
    .boot(Box::new(collected.clone()), Box::new(std::io::stderr()))?;
    let Outcome::Exited(0) = outcome else {
        bail!("cannot read the kernel's symbols in the bed: {outcome:?}");
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
