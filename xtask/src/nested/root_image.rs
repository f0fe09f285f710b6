//! The root file system of the outer machine: an ext4 image or an initramfs with files of this machine at their own paths.
//!
//! Debian's cloud kernel has no 9p, and virtiofs needs a daemon that each Debian release packages differently. An image of 150 MB is made in a
//! second, so each boot gets a new one: programs with the shared libraries that `ldd` names, GDB with its
//! Python, and the files of the checkout. A machine without a disk gets the same files as an archive.

use super::cpio::Archive;
use crate::process;
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// Free space for the guest in the image. The file is sparse.
const IMAGE_SIZE: &str = "4g";

/// The links at the top of Debian's merged `/usr`.
const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];

/// A folder that is filled, and removed when the value is dropped.
pub(super) struct RootImage {
    staging: PathBuf,
    added: BTreeSet<PathBuf>,
    /// Of the added files, the programs with shared libraries. Guests are none.
    programs: Vec<PathBuf>,
}

impl RootImage {
    /// An empty root at `staging`, with the folders that a Linux system expects.
    pub(super) fn new(staging: &Path) -> anyhow::Result<Self> {
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
            programs: Vec::new(),
        };
        image.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
        image.write("etc/group", "root:x:0:\n")?;
        image.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
        Ok(image)
    }

    /// Writes a small file. `path` is relative to the root.
    pub(super) fn write(&mut self, path: &str, content: &str) -> anyhow::Result<()> {
        let target = self.staging.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, content)?;
        Ok(())
    }

    /// The same as [`Self::write`] for an executable file.
    pub(super) fn program(&mut self, path: &str, content: &str) -> anyhow::Result<()> {
        self.write(path, content)?;
        let target = self.staging.join(path);
        Ok(std::fs::set_permissions(
            target,
            Permissions::from_mode(0o755),
        )?)
    }

    /// Adds the file `from` at `path`, which is relative to the root.
    pub(super) fn add(&mut self, path: &str, from: &Path) -> anyhow::Result<()> {
        place(from, &self.staging.join(path))
    }

    /// Adds busybox, and its applets where no other program was added.
    pub(super) fn busybox(&mut self, busybox: &Path) -> anyhow::Result<()> {
        let target = self.staging.join("usr/bin/busybox");
        place(busybox, &target)?;
        let applets = process::capture(Command::new(busybox).arg("--list"))?;
        for applet in applets.lines() {
            let link = self.staging.join("usr/bin").join(applet);
            // `exists` would follow the link, whose target exists only inside.
            if link.symlink_metadata().is_err() {
                std::os::unix::fs::symlink("/usr/bin/busybox", link)?;
            }
        }
        // If /bin is no link to /usr/bin, programs still expect a shell there.
        let sh = self.staging.join("bin/sh");
        if sh.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("/usr/bin/busybox", sh)?;
        }
        Ok(())
    }

    /// Adds a file at its own absolute path, and the loader and the libraries of a program.
    pub(super) fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        if !self.added.insert(path.to_owned()) {
            return Ok(());
        }
        place(path, &self.inside(path))?;
        if is_elf(path)? {
            let libraries = libraries(path);
            if !libraries.is_empty() {
                self.programs.push(path.to_owned());
            }
            for library in libraries {
                if self.added.insert(library.clone()) {
                    place(&library, &self.inside(&library))?;
                }
            }
        }
        Ok(())
    }

    /// Adds a folder and its contents, without the file names for which `skip` returns true.
    pub(super) fn tree(
        &mut self,
        folder: &Path,
        skip: &dyn Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
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

    /// Adds this machine's GDB with its Python and data files, if there is one.
    pub(super) fn gdb(&mut self) -> anyhow::Result<()> {
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
        // A GDB without Python works too.
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
        // Without the converter to its own character set, GDB prints a warning about every string.
        let converters = Path::new("/usr/lib/x86_64-linux-gnu/gconv");
        if converters.is_dir() {
            self.tree(converters, &|name| {
                !name.starts_with("gconv-modules") && name != "UTF-32.so"
            })?;
        }
        Ok(())
    }

    /// Writes the file system image.
    pub(super) fn make(&self, image: &Path) -> anyhow::Result<()> {
        let mke2fs = process::find_program("mke2fs")
            .context("this machine has no mke2fs: install the Debian package e2fsprogs")?;
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

    /// Removes debug information from the programs. It is most of the size of a debug build, and only a debugger of these programs would read it.
    pub(super) fn strip(&self) -> anyhow::Result<()> {
        for program in &self.programs {
            let inside = self.inside(program);
            // The file is a link to this machine's own file.
            let stripped = self.staging.join(".stripped");
            process::capture(
                Command::new("objcopy")
                    .arg("--strip-debug")
                    .arg(&inside)
                    .arg(&stripped),
            )?;
            std::fs::rename(&stripped, &inside)?;
        }
        Ok(())
    }

    /// All files in the order of their names, so that the same files give the same archive.
    pub(super) fn archive(&self, archive: &mut Archive) -> anyhow::Result<()> {
        self.archive_folder(&self.staging, archive)
    }

    fn archive_folder(&self, folder: &Path, archive: &mut Archive) -> anyhow::Result<()> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        paths.sort();
        for path in paths {
            let name = path
                .strip_prefix(&self.staging)
                .expect("it lies below")
                .to_str()
                .with_context(|| format!("{} is no UTF-8", path.display()))?;
            let metadata = path.symlink_metadata()?;
            if metadata.is_symlink() {
                let target = std::fs::read_link(&path)?;
                archive.link(name, &target.to_string_lossy());
            } else if metadata.is_dir() {
                archive.folder(name);
                self.archive_folder(&path, archive)?;
            } else {
                let content = std::fs::read(&path)?;
                archive.file(name, metadata.permissions().mode() & 0o777, &content);
            }
        }
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

/// A hard link if possible (mke2fs only reads), otherwise a copy.
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

/// The loader and the shared libraries of a program. A static program has none, and neither has a guest kernel, which `ldd` does not know.
fn libraries(program: &Path) -> Vec<PathBuf> {
    process::capture(Command::new("ldd").arg(program))
        .map(|listing| parse_ldd(&listing))
        .unwrap_or_default()
}

fn parse_ldd(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        // A library of another distribution is listed with the loader of this one, which names the versions that it lacks.
        .filter(|line| !line.contains(": version `"))
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
                       /old/libtls.so.30: /lib/libc.so.6: version `GLIBC_2.38' not found (required by /old/libtls.so.30)\n\
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
