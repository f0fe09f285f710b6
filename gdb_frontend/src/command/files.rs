//! `vFile`: GDB reads files of the machine of the server (GDB manual, node "Host I/O Packets").

use super::Command;
use super::syntax;

/// A file operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileRequest {
    /// `vFile:setfs:pid`: selects the file system of a process.
    SelectFileSystem,
    /// `vFile:open:filename,flags,mode`: opens a file.
    Open {
        /// The bytes of the path.
        name: Vec<u8>,
        /// The flags of the File-I/O protocol.
        flags: u64,
    },
    /// `vFile:pread:fd,count,offset`: reads from an open file.
    Read {
        /// The descriptor that the answer to `open` has named.
        file: u64,
        /// The maximum number of bytes.
        len: u64,
        /// The offset of the first byte.
        offset: u64,
    },
    /// `vFile:fstat:fd`: describes an open file.
    Status {
        /// The descriptor.
        file: u64,
    },
    /// `vFile:close:fd`: closes a file.
    Close {
        /// The descriptor.
        file: u64,
    },
    /// `vFile:pwrite` and `vFile:unlink`: change files.
    Change,
    /// `vFile:readlink:filename`: reads a symbolic link.
    ReadLink {
        /// The bytes of the path.
        name: Vec<u8>,
    },
    /// One of these operations with other arguments.
    Malformed,
}

/// `vFile:operation:parameter...`: "Numbers are always passed in hexadecimal. [...] Strings (e.g. filenames) are encoded as a series of hexadecimal bytes."
/// "An empty response indicates that this operation is not recognized."
pub(super) fn request(arguments: &[u8]) -> Command<'_> {
    let Some((operation, parameters)) = arguments
        .strip_prefix(b":")
        .and_then(|rest| syntax::split_once(rest, b':'))
    else {
        return Command::Unknown;
    };
    let request = match operation {
        // The process does not matter: each sees the same file.
        b"setfs" => syntax::number(parameters).map(|_| FileRequest::SelectFileSystem),
        b"open" => open(parameters),
        b"pread" => read(parameters),
        b"fstat" => syntax::number(parameters).map(|file| FileRequest::Status { file }),
        b"close" => syntax::number(parameters).map(|file| FileRequest::Close { file }),
        b"pwrite" | b"unlink" => Some(FileRequest::Change),
        b"readlink" => syntax::bytes(parameters).map(|name| FileRequest::ReadLink { name }),
        _ => return Command::Unknown,
    };
    Command::File(request.unwrap_or(FileRequest::Malformed))
}

/// `open:filename,flags,mode`. The mode is that of a new file.
fn open(parameters: &[u8]) -> Option<FileRequest> {
    let (name, rest) = syntax::split_once(parameters, b',')?;
    let (flags, _) = syntax::range(rest)?;
    let name = syntax::bytes(name)?;
    Some(FileRequest::Open { name, flags })
}

/// `pread:fd,count,offset`.
fn read(parameters: &[u8]) -> Option<FileRequest> {
    let (file, rest) = syntax::split_once(parameters, b',')?;
    let (len, offset) = syntax::range(rest)?;
    let file = syntax::number(file)?;
    Some(FileRequest::Read { file, len, offset })
}
