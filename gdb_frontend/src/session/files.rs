//! The one file that clients may read: the one with the guest's symbols, which the VMM has opened.
//!
//! A path of a client is only compared with the name of this file, byte by byte. So no path is resolved, and no symbolic link is followed.

use super::Core;
use super::pending::Pending;
use crate::command::FileRequest;
use crate::framing::PACKET_SIZE;
use crate::framing::PacketWriter;
use crate::target::SymbolFile;
use crate::target::TargetOp;

/// The maximum number of bytes in a reply: they fit also if each needs an escape.
const MAX_READ: usize = PACKET_SIZE / 2 - 16;

/// The maximum number of open files. GDB has the file open once or twice.
const MAX_OPEN: usize = 16;

/// Errors of the File-I/O protocol (GDB manual, node "Errno Values"). The numbers are those of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileError {
    NotFound = 2,
    Failed = 5,
    NotOpen = 9,
    BadArgument = 22,
    TooManyOpen = 24,
    ReadOnly = 30,
}

/// The descriptors that a client has opened. All of them are the same file.
#[derive(Debug, Default)]
pub(super) struct OpenFiles([bool; MAX_OPEN]);

impl OpenFiles {
    fn open(&mut self) -> Result<u64, FileError> {
        let free = self.0.iter().position(|is_open| !is_open);
        let free = free.ok_or(FileError::TooManyOpen)?;
        self.0[free] = true;
        Ok(free as u64)
    }

    fn find(&mut self, file: u64) -> Result<&mut bool, FileError> {
        let index = usize::try_from(file).map_err(|_| FileError::NotOpen)?;
        let found = self.0.get_mut(index).filter(|is_open| **is_open);
        found.ok_or(FileError::NotOpen)
    }
}

impl Core {
    /// A server without a file has no file operations, so that GDB looks for files on its own machine.
    pub(super) fn file(&mut self, request: FileRequest) {
        let Some(symbols) = &self.info.symbols else {
            return self.text("");
        };
        match answer(&mut self.open_files, symbols, request) {
            Ok(Answer::Number(number)) => self.text(&format!("F{number:x}")),
            Ok(Answer::Bytes(bytes)) => self.send_file(&bytes),
            Ok(Answer::Read { offset, len }) => {
                self.ask(
                    TargetOp::ReadSymbolFile { offset, len },
                    Pending::FileRead(len),
                );
            }
            Err(error) => self.file_error(error),
        }
    }

    /// `F result;attachment`.
    pub(super) fn send_file(&mut self, bytes: &[u8]) {
        let mut packet = PacketWriter::with_capacity(16 + bytes.len());
        packet.str("F");
        packet.number(bytes.len() as u64);
        packet.str(";");
        packet.binary(bytes);
        self.outbox.packet(packet.finish());
    }

    /// `F -1,errno`.
    pub(super) fn file_error(&mut self, error: FileError) {
        self.text(&format!("F-1,{:x}", error as u8));
    }
}

enum Answer {
    Number(u64),
    Bytes(Vec<u8>),
    Read { offset: u64, len: usize },
}

fn answer(
    open_files: &mut OpenFiles,
    symbols: &SymbolFile,
    request: FileRequest,
) -> Result<Answer, FileError> {
    Ok(match request {
        FileRequest::SelectFileSystem => Answer::Number(0),
        FileRequest::Open { name, .. } if name != symbols.name => return Err(FileError::NotFound),
        FileRequest::Open { flags: 0, .. } => Answer::Number(open_files.open()?),
        FileRequest::Open { .. } | FileRequest::Change => return Err(FileError::ReadOnly),
        FileRequest::Read { file, len, offset } => {
            open_files.find(file)?;
            match usize::try_from(len).map_or(MAX_READ, |len| len.min(MAX_READ)) {
                0 => Answer::Bytes(Vec::new()),
                len => Answer::Read { offset, len },
            }
        }
        FileRequest::Status { file } => {
            open_files.find(file)?;
            Answer::Bytes(status(symbols))
        }
        FileRequest::Close { file } => {
            *open_files.find(file)? = false;
            Answer::Number(0)
        }
        FileRequest::ReadLink { name } if name == symbols.name => {
            // As readlink(2) for a file that is no symbolic link.
            return Err(FileError::BadArgument);
        }
        FileRequest::ReadLink { .. } => return Err(FileError::NotFound),
        FileRequest::Malformed => return Err(FileError::BadArgument),
    })
}

/// `struct stat` of the File-I/O protocol, big-endian: device, inode, mode, links, user, group, rdev (32 bits each), size, block size, blocks (64 bits each), and the
/// times of access, modification and change (32 bits each).
fn status(symbols: &SymbolFile) -> Vec<u8> {
    const REGULAR_READ_ONLY: u32 = 0o100_444;
    const BLOCK: u64 = 512;
    let mut bytes = Vec::with_capacity(64);
    for field in [0, 0, REGULAR_READ_ONLY, 1, 0, 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    for field in [symbols.len, BLOCK, symbols.len.div_ceil(BLOCK)] {
        bytes.extend(field.to_be_bytes());
    }
    for _ in 0..3 {
        bytes.extend(symbols.modified.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_read_fits_in_a_packet_whatever_the_bytes_are() {
        let mut packet = PacketWriter::default();
        packet.str("F");
        packet.number(MAX_READ as u64);
        packet.str(";");
        assert_eq!(packet.binary(&vec![b'#'; MAX_READ]), MAX_READ);
    }
}
