//! A new file in the folder that the operator has named. A separate thread writes the file, so a slow disk delays only
//! the client that waits for the dump.
//!
//! A network client chooses the file name. Therefore the name must not contain a path, an existing file is never
//! opened, and an unfinished file is removed.

use mesh::OneshotSender;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use thiserror::Error;

/// Blocks of this length that contain only zeros are not written, so the file has holes there.
const HOLE: usize = 64 << 10;

const LONGEST_NAME: usize = 100;

/// The reason why there is no dump.
#[derive(Debug, Error)]
pub(super) enum DumpError {
    #[error(
        "a dump is a file on the VMM's machine, and the operator has named no folder for dumps; start the VMM with --dump-dir DIR"
    )]
    NoFolder,
    #[error(
        "`{0}` cannot be the name of a dump; write at most {LONGEST_NAME} letters, digits, `.`, `_` and `-`, beginning with a letter or digit; the folder is that of --dump-dir"
    )]
    BadName(String),
    #[error("{0} exists, and a dump does not overwrite a file; choose another name")]
    Exists(PathBuf),
    #[error(
        "{path} cannot be written: {source}; the unfinished file was removed; free disk space or choose another folder"
    )]
    System { path: PathBuf, source: io::Error },
}

/// A file that is being written. Dropping it before `finish` removes the file.
#[derive(Debug)]
pub(super) struct DumpFile {
    path: PathBuf,
    work: mpsc::Sender<Work>,
    finished: bool,
}

struct Work {
    at: u64,
    data: Vec<u8>,
    /// Whether the file ends at `at`.
    end: bool,
    done: OneshotSender<io::Result<()>>,
}

impl DumpFile {
    pub(super) fn create(folder: Option<&Path>, name: &str) -> Result<Self, DumpError> {
        let folder = folder.ok_or(DumpError::NoFolder)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let first = name.bytes().next().unwrap_or(b'.');
        let good = name.bytes().all(allowed) && first.is_ascii_alphanumeric();
        if !good || name.len() > LONGEST_NAME {
            let shown = name.chars().take(LONGEST_NAME).collect();
            return Err(DumpError::BadName(shown));
        }
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        let file = match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(DumpError::Exists(path));
            }
            Err(source) => return Err(DumpError::System { path, source }),
        };
        let (work, queue) = mpsc::channel();
        let created = Self {
            path,
            work,
            finished: false,
        };
        let thread = std::thread::Builder::new().name("dump".to_owned());
        match thread.spawn(move || write_all(&file, &queue)) {
            Ok(_) => Ok(created),
            Err(source) => Err(created.failed(source)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `data` at the offset `at`, and waits until it is written.
    pub(super) async fn write(&self, at: u64, data: Vec<u8>) -> Result<(), DumpError> {
        self.work(at, data, false).await
    }

    /// Completes the file with the length `len`.
    pub(super) async fn finish(mut self, len: u64) -> Result<(), DumpError> {
        self.work(len, Vec::new(), true).await?;
        self.finished = true;
        Ok(())
    }

    async fn work(&self, at: u64, data: Vec<u8>, end: bool) -> Result<(), DumpError> {
        let (done, written) = mesh::oneshot();
        let gone = || io::Error::other("the thread that writes the dump has ended");
        let sent = self.work.send(Work {
            at,
            data,
            end,
            done,
        });
        let written = match sent {
            Ok(()) => written.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        };
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> DumpError {
        let path = self.path.clone();
        DumpError::System { path, source }
    }
}

impl Drop for DumpFile {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove an unfinished dump");
        }
    }
}

fn write_all(file: &File, queue: &mpsc::Receiver<Work>) {
    for work in queue {
        work.done.send(match work.end {
            true => file.set_len(work.at),
            false => write(file, work.at, &work.data),
        });
    }
}

fn write(file: &File, mut at: u64, data: &[u8]) -> io::Result<()> {
    for piece in data.chunks(HOLE) {
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, at)?;
        }
        at += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pal_async::local::block_on;

    #[test]
    fn a_name_that_leads_elsewhere_or_hides_is_refused_and_so_is_any_without_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(LONGEST_NAME + 1);
        for name in [
            "", ".", "..", "../x", "/etc/x", "a/b", ".x", "-x", "a b", "a\0", "ä", &long,
        ] {
            let refused = DumpFile::create(Some(folder.path()), name);
            assert!(matches!(refused, Err(DumpError::BadName(_))), "{name:?}");
        }
        let refused = DumpFile::create(None, "x").unwrap_err();
        assert!(refused.to_string().contains("--dump-dir"));
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_exists_is_left_alone_and_so_is_what_a_link_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let (there, link) = (folder.path().join("there"), folder.path().join("link"));
        std::fs::write(&there, "kept").unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("new"), link).unwrap();
        for name in ["there", "link"] {
            let refused = DumpFile::create(Some(folder.path()), name);
            assert!(matches!(refused, Err(DumpError::Exists(_))), "{name}");
        }
        assert_eq!(std::fs::read(there).unwrap(), b"kept");
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_finished_is_removed_and_what_is_has_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let file = DumpFile::create(Some(folder.path()), "dump").unwrap();
        block_on(file.write(0, vec![1; 10])).unwrap();
        drop(file);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        let file = DumpFile::create(Some(folder.path()), "dump").unwrap();
        let mut data = vec![0; 3 * HOLE];
        data[HOLE] = 7;
        block_on(file.write(5, data.clone())).unwrap();
        block_on(file.finish(5 + 4 * HOLE as u64)).unwrap();
        let read = std::fs::read(folder.path().join("dump")).unwrap();
        assert_eq!(read.len(), 5 + 4 * HOLE);
        assert_eq!(read[5..5 + 3 * HOLE], data);
    }
}
