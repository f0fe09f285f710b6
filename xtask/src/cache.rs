//! The user's cache folder for files that others have made and that we only download or build. The folder is outside the checkout, and all checkouts share it.

use anyhow::Context as _;
use anyhow::bail;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

/// `$XDG_CACHE_HOME/trapgate`, or `~/.cache/trapgate`.
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the folder. Makes the folder if it is missing.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
            Some(base) => PathBuf::from(base),
            None => match std::env::var_os("HOME") {
                Some(home) => Path::new(&home).join(".cache"),
                None => bail!(
                    "neither XDG_CACHE_HOME nor HOME is set: set XDG_CACHE_HOME to a folder with 2 GB of free space"
                ),
            },
        };
        Self::at(base.join("trapgate"))
    }

    fn at(root: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&root)
            .with_context(|| format!("cannot make the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself, for state that is not an artefact, such as package lists.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of an artefact. If it is missing, `make` fills an empty folder and returns the version of the contents.
    ///
    /// The name of the folder contains the version and a hash of `recipe`. A changed recipe makes the artefact anew. A newer version upstream does not; remove the folder
    /// to get the newer version. A folder gets its final name when it is complete. Only one process makes an artefact at a time.
    pub(crate) fn artefact(
        &self,
        name: &str,
        recipe: &str,
        make: impl FnOnce(&Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<PathBuf> {
        let hash = format!("{:016x}", fnv1a(format!("{name}\n{recipe}").as_bytes()));
        if let Some(found) = self.find(name, &hash)? {
            return Ok(found);
        }
        let _lock = self.lock()?;
        // Another process may have made it while this process waited.
        if let Some(found) = self.find(name, &hash)? {
            return Ok(found);
        }
        // This process has the lock, so a partial folder is left over from an interrupted run.
        let partial = self.root.join(format!("partial-{name}"));
        if partial.exists() {
            std::fs::remove_dir_all(&partial)
                .with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        std::fs::create_dir(&partial)?;
        let version = make(&partial)?;
        let finished = self.root.join(format!("{name}-{version}-{hash}"));
        std::fs::rename(&partial, &finished)
            .with_context(|| format!("cannot rename to {}", finished.display()))?;
        Ok(finished)
    }

    fn find(&self, name: &str, hash: &str) -> anyhow::Result<Option<PathBuf>> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(&self.root)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let file = path.file_name().and_then(|file| file.to_str());
                file.and_then(|file| file.strip_prefix(name)?.strip_prefix('-'))
                    .is_some_and(|rest| rest.ends_with(hash))
            })
            .collect();
        found.sort();
        Ok(found.pop())
    }

    fn lock(&self) -> anyhow::Result<File> {
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            println!(
                "xtask: waiting for another run that is filling {}",
                self.root.display()
            );
            file.lock()?;
        }
        Ok(file)
    }
}

/// FNV-1a, 64 bits. The hash names folders and protects nothing. (The hasher of the standard library may change from release to release.)
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xtask-cache-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn an_artefact_is_made_once_and_anew_for_a_changed_recipe() {
        let cache = Cache::at(scratch("once")).unwrap();
        let made = Cell::new(0);
        let make = |folder: &Path| {
            made.set(made.get() + 1);
            std::fs::write(folder.join("file"), "x")?;
            Ok("1.2".to_owned())
        };
        let first = cache.artefact("tool", "recipe", make).unwrap();
        assert_eq!(cache.artefact("tool", "recipe", make).unwrap(), first);
        assert_eq!(made.get(), 1);
        assert_ne!(cache.artefact("tool", "other", make).unwrap(), first);
        assert_eq!(made.get(), 2);
        std::fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn an_interrupted_build_is_not_taken_for_done() {
        let cache = Cache::at(scratch("interrupted")).unwrap();
        let failed = cache.artefact("tool", "recipe", |folder| {
            std::fs::write(folder.join("half"), "x")?;
            bail!("the build broke")
        });
        assert!(failed.is_err());
        let folder = cache
            .artefact("tool", "recipe", |folder| {
                assert!(!folder.join("half").exists());
                Ok("1".to_owned())
            })
            .unwrap();
        assert!(folder.is_dir());
        std::fs::remove_dir_all(cache.root()).unwrap();
    }
}
