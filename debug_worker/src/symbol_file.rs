//! The file with the guest's symbols, which a client may read.

use rustix::fs::OFlags;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
#[cfg(feature = "process")]
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

/// An open file with the symbols of the guest. GDB asks for its name, and reads the file from the server.
///
/// The server reads by the descriptor, and never opens a path. So a worker in its sandbox can read the file, and a client can name no other file.
#[derive(Debug, Clone)]
pub struct SymbolFile {
    file: Arc<File>,
    about: AboutFile,
}

/// What a client learns of the file without reading the file.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "process", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct AboutFile {
    /// The bytes of the absolute path.
    name: Vec<u8>,
    len: u64,
    /// Seconds since 1970.
    modified: u32,
}

impl SymbolFile {
    /// Opens a file.
    ///
    /// # Errors
    /// The file cannot be opened, or is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A pipe would wait for its other end.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let why = "it is no regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let about = AboutFile {
            name: std::path::absolute(path)?.as_os_str().as_bytes().to_vec(),
            len: metadata.len(),
            modified: u32::try_from(metadata.mtime()).unwrap_or_default(),
        };
        let file = Arc::new(file);
        Ok(Self { file, about })
    }

    /// A file that another process has opened.
    #[cfg(feature = "process")]
    pub(crate) fn inherited(file: OwnedFd, about: AboutFile) -> Self {
        let file = Arc::new(file.into());
        Self { file, about }
    }

    /// The descriptor and the properties, for another process.
    #[cfg(feature = "process")]
    pub(crate) fn share(&self) -> io::Result<(OwnedFd, AboutFile)> {
        Ok((self.file.try_clone()?.into(), self.about.clone()))
    }

    /// The file as the protocol sees it.
    pub(crate) fn for_client(&self) -> gdb_frontend::target::SymbolFile {
        let AboutFile {
            name,
            len,
            modified,
        } = self.about.clone();
        gdb_frontend::target::SymbolFile {
            name,
            len,
            modified,
        }
    }

    /// Reads up to `len` bytes. Fewer only at the end of the file.
    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let offset = offset.saturating_add(done as u64);
            match self.file.read_at(&mut bytes[done..], offset) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_read_by_its_descriptor_also_if_its_name_now_means_another_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vmlinux");
        fs::write(&path, b"0123456789").expect("writable");
        let file = SymbolFile::open(&path).expect("a file");
        fs::rename(&path, folder.path().join("aside")).expect("ours");
        symlink("/etc/passwd", &path).expect("ours");
        let read = |offset, len| file.read(offset, len).map_err(|error| error.kind());
        assert_eq!(read(0, 4), Ok(b"0123".to_vec()));
        assert_eq!(read(8, 100), Ok(b"89".to_vec()));
        assert_eq!(read(10, 100), Ok(Vec::new()));
        assert_eq!(read(u64::MAX, 1), Err(io::ErrorKind::InvalidInput));
        let about = file.for_client();
        assert_eq!(about.name, path.as_os_str().as_bytes());
        assert_eq!(about.len, 10);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after");
        assert!(now.as_secs() - u64::from(about.modified) < 3600);
    }

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).expect("ours");
        for path in [&pipe, folder.path(), Path::new("/dev/null")] {
            let refused = SymbolFile::open(path).map(drop);
            let kind = refused.expect_err("no regular file").kind();
            assert_eq!(kind, io::ErrorKind::InvalidInput, "{}", path.display());
        }
        let missing = SymbolFile::open(&folder.path().join("missing")).map(drop);
        assert_eq!(
            missing.expect_err("missing").kind(),
            io::ErrorKind::NotFound
        );
    }
}
