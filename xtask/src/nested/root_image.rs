//! The guest's root file system: an ext4 image with the named files of this machine at their own paths.
//!
//! Debian's cloud kernel has no 9p, and virtiofs needs a daemon that each Debian release packages differently. An image of 150 MB is made in a
//! second, so there is one for each boot and nothing to keep in step: programs with the shared libraries that `ldd` names, GDB with its
//! Python, and the checkout's own files.

use crate::process;
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// Room for what the guest writes, in the image as it appears to the guest; the file is sparse.
const IMAGE_SIZE: &str = "4g";

/// Where Debian's merged `/usr` has links at the top.
const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];

/// A folder being filled, removed again when dropped.
pub struct RootImage {
    staging: PathBuf,
    added: BTreeSet<PathBuf>,
}

impl RootImage {
    /// An empty root at `staging`, with the folders that a Linux system expects.
    pub fn new(staging: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(staging)?;
        for folder in [
            "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "var/tmp",
        ] {
            std::fs::create_dir_all(staging.join(folder))?;
        }
        for name in MERGED {
            let host = Path::new("/").join(name);
            if let Ok(target) = std::fs::read_link(&host) {
                std::fs::create_dir_all(staging.join("usr").join(name))?;
                std::os::unix::fs::symlink(target, staging.join(name))?;
            } else {
                std::fs::create_dir_all(staging.join(name))?;
            }
        }
        let mut image = Self {
            staging: staging.to_owned(),
            added: BTreeSet::new(),
        };
        image.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
        image.write("etc/group", "root:x:0:\n")?;
        image.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
        Ok(image)
    }

    /// A small file of our own; `path` is relative to the root.
    pub fn write(&mut self, path: &str, content: &str) -> anyhow::Result<()> {
        let target = self.staging.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, content)?;
        Ok(())
    }

    /// busybox and its applets where nothing better was added.
    pub fn busybox(&mut self, busybox: &Path) -> anyhow::Result<()> {
        let target = self.staging.join("usr/bin/busybox");
        place(busybox, &target)?;
        let applets = process::capture(Command::new(busybox).arg("--list"))?;
        for applet in applets.lines() {
            let link = self.staging.join("usr/bin").join(applet);
            // Not `exists`: the target is only there inside.
            if link.symlink_metadata().is_err() {
                std::os::unix::fs::symlink("/usr/bin/busybox", link)?;
            }
        }
        // Where /bin is no link to /usr/bin, programs still expect a shell there.
        let sh = self.staging.join("bin/sh");
        if sh.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("/usr/bin/busybox", sh)?;
        }
        Ok(())
    }

    /// A file at its own absolute path; of a program also its loader and libraries.
    pub fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        if !self.added.insert(path.to_owned()) {
            return Ok(());
        }
        place(path, &self.inside(path))?;
        if is_elf(path)? {
            for library in libraries(path) {
                if self.added.insert(library.clone()) {
                    place(&library, &self.inside(&library))?;
                }
            }
        }
        Ok(())
    }

    /// A folder with all that is in it, except where `skip` says otherwise for a file name.
    pub fn tree(&mut self, folder: &Path, skip: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.inside(folder))?;
        for entry in std::fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
        {
            let entry = entry?;
            let path = entry.path();
            if skip(&entry.file_name().to_string_lossy()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                self.tree(&path, skip)?;
            } else if path.is_file() {
                place(&path, &self.inside(&path))?;
            }
        }
        Ok(())
    }

    /// GDB as installed on this machine, with its Python and data files, where there is one.
    pub fn gdb(&mut self) -> anyhow::Result<()> {
        let Some(gdb) = process::find_program("gdb") else {
            return Ok(());
        };
        self.file(&gdb)?;
        let python = process::capture(Command::new(&gdb).args([
            "-nx",
            "-batch",
            "-ex",
            "python import os; print(os.path.dirname(os.__file__))",
        ]));
        // A GDB without Python is a GDB all the same.
        for folder in [
            python.ok().map(|path| PathBuf::from(path.trim())),
            Some(PathBuf::from("/usr/share/gdb")),
        ] {
            if let Some(folder) = folder.filter(|folder| folder.is_dir()) {
                self.tree(&folder, &|name| {
                    matches!(
                        name,
                        "test" | "tests" | "site-packages" | "lib2to3" | "idlelib" | "ensurepip"
                    )
                })?;
            }
        }
        // Without the converter to its own character set, GDB complains about every string.
        let converters = Path::new("/usr/lib/x86_64-linux-gnu/gconv");
        if converters.is_dir() {
            self.tree(converters, &|name| {
                !name.starts_with("gconv-modules") && name != "UTF-32.so"
            })?;
        }
        Ok(())
    }

    /// Writes the file system image.
    pub fn make(&self, image: &Path) -> anyhow::Result<()> {
        let mke2fs = process::find_program("mke2fs")
            .context("no mke2fs here: install the Debian package e2fsprogs")?;
        process::capture(
            Command::new(mke2fs)
                .args([
                    "-q",
                    "-F",
                    "-t",
                    "ext4",
                    "-O",
                    "^has_journal",
                    "-m",
                    "0",
                    "-d",
                ])
                .arg(&self.staging)
                .arg(image)
                .arg(IMAGE_SIZE),
        )?;
        Ok(())
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.staging.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Drop for RootImage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.staging);
    }
}

/// A hard link where possible (mke2fs only reads), otherwise a copy.
fn place(from: &Path, to: &Path) -> anyhow::Result<()> {
    let real = from
        .canonicalize()
        .with_context(|| format!("no file {}", from.display()))?;
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if to.exists() || std::fs::hard_link(&real, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(&real, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn is_elf(path: &Path) -> anyhow::Result<bool> {
    let mut magic = Vec::new();
    std::fs::File::open(path)?.take(4).read_to_end(&mut magic)?;
    Ok(magic == b"\x7fELF")
}

/// Loader and shared libraries of a program; none of a static one, or of a guest kernel, which `ldd` does not know.
fn libraries(program: &Path) -> Vec<PathBuf> {
    process::capture(Command::new("ldd").arg(program))
        .map(|listing| parse_ldd(&listing))
        .unwrap_or_default()
}

fn parse_ldd(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            let path = line.split_once("=> ").map_or(line, |(_, path)| path);
            let path = path.split(" (").next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_read_from_ldd() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\
                       \tlibgone.so => not found\n";
        assert_eq!(
            parse_ldd(listing),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }
}
