//! The kernel of the outer machine and of Linux guests: a stock Debian cloud kernel, which is downloaded and unpacked, and not installed.

use crate::cache::Cache;
use crate::debian::Apt;
use crate::process;
use anyhow::Context as _;
use anyhow::bail;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The kernel series with which the bed was measured.
const SERIES: &str = "6.12.";

/// The modules for the outer machines.
const MODULES: &[&str] = &["irqbypass", "kvm", "kvm-amd", "kvm-intel", "virtio_blk"];
/// The modules for Linux guests, in the order of loading. They report a panic.
pub(super) const GUEST_MODULES: &[&str] = &["pvpanic", "pvpanic-mmio"];

/// Kernel, modules, and a static busybox for initramfs images.
#[derive(Clone)]
pub(super) struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Takes the files from the cache, or downloads them.
    pub(super) fn provide(cache: &Cache) -> anyhow::Result<Self> {
        let recipe = format!("{SERIES} {} {}", MODULES.join(" "), GUEST_MODULES.join(" "));
        let folder = cache.artefact("kernel", &recipe, |folder| {
            download(&Apt::open(cache.root())?, folder)
        })?;
        Ok(Self { folder })
    }

    /// The compressed image that Debian ships.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// A statically linked busybox.
    pub(super) fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    /// An uncompressed module of [`MODULES`] or [`GUEST_MODULES`].
    pub(super) fn module(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.ko"))
    }

    /// The kernel and its version, for the names of artefacts that are made from it.
    pub(super) fn identity(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

fn download(apt: &Apt, folder: &Path) -> anyhow::Result<String> {
    let (version, depends) = apt.version("linux-image-cloud-amd64", |version| {
        version.starts_with(SERIES)
    })?;
    let image = depends
        .split([',', ' '])
        .find(|name| name.starts_with("linux-image-"))
        .context("linux-image-cloud-amd64 depends on no kernel image")?;
    let unpacked = folder.join("unpacked");
    std::fs::create_dir_all(&unpacked)?;
    apt.unpack(&format!("{image}={version}"), &unpacked)?;
    apt.unpack("busybox-static", &unpacked)?;

    let release = image.trim_start_matches("linux-image-");
    std::fs::rename(
        unpacked.join(format!("boot/vmlinuz-{release}")),
        folder.join("vmlinuz"),
    )?;
    let busybox = ["bin/busybox", "usr/bin/busybox"]
        .into_iter()
        .map(|path| unpacked.join(path))
        .find(|path| path.is_file())
        .context("the package busybox-static has no busybox")?;
    std::fs::rename(busybox, folder.join("busybox"))?;

    let modules = ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .map(|path| unpacked.join(path))
        .find(|path| path.is_dir())
        .context("the kernel package contains no modules")?;
    for name in MODULES.iter().chain(GUEST_MODULES) {
        let found = find_module(&modules, name)?
            .with_context(|| format!("{image} has no module {name}"))?;
        let target = folder.join(format!("{name}.ko"));
        match found.extension().and_then(|extension| extension.to_str()) {
            Some("ko") => {
                std::fs::copy(&found, &target)?;
            }
            Some("xz") => {
                let output = Command::new("xz")
                    .args(["--decompress", "--stdout"])
                    .arg(&found)
                    .output()
                    .context("cannot start `xz` (Debian package xz-utils)")?;
                if !output.status.success() {
                    bail!("xz cannot decompress {}", found.display());
                }
                std::fs::write(&target, output.stdout)?;
            }
            _ => bail!("{} is compressed in an unknown way", found.display()),
        }
    }
    std::fs::remove_dir_all(&unpacked)?;
    Ok(version
        .split(['-', '~'])
        .next()
        .unwrap_or(&version)
        .to_owned())
}

fn find_module(folder: &Path, name: &str) -> anyhow::Result<Option<PathBuf>> {
    let listing = process::capture(Command::new("find").arg(folder).args([
        "-name",
        &format!("{name}.ko"),
        "-o",
        "-name",
        &format!("{name}.ko.xz"),
    ]))?;
    Ok(listing.lines().next().map(PathBuf::from))
}
