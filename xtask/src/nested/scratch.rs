//! A folder for one run of the bed.

use anyhow::Context as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// A folder for one run, removed at its end. Sockets have to fit in 108 bytes, so it is not below the checkout.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    const PREFIX: &str = "trapgate-nested-";

    /// Makes it.
    pub(super) fn new() -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Self::sweep();
        let path = std::env::temp_dir().join(format!(
            "{}{}-{}",
            Self::PREFIX,
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what runs left behind that were ended by Ctrl-C: a disk image is 200 MB.
    fn sweep() {
        let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let process = name
                .to_str()
                .and_then(|name| name.strip_prefix(Self::PREFIX)?.split('-').next());
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                // Another user's is not ours to remove.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
