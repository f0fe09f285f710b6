//! An initramfs: a cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::path::Path;

const MODE_FOLDER: u32 = 0o040_755;
const MODE_FILE: u32 = 0o100_000;
const MODE_LINK: u32 = 0o120_777;

/// Collects entries. A folder has to be added before its contents.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An empty folder.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, MODE_FOLDER, &[]);
    }

    /// A file that may be executed.
    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.file(name, 0o755, content);
    }

    /// A file with these permissions.
    pub(super) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, MODE_FILE | permissions, content);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, name: &str, target: &str) {
        self.entry(name, MODE_LINK, target.as_bytes());
    }

    /// Writes the archive with its trailer. The archive is not compressed, because decompression takes longer than reading under emulation.
    pub(super) fn write(mut self, path: &Path) -> std::io::Result<()> {
        self.entry("TRAILER!!!", 0, &[]);
        std::fs::write(path, self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("an initramfs file is below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a file name is short");
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// The name and the contents both end on a multiple of four bytes.
    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_header_that_linux_expects() {
        let mut archive = Archive::default();
        archive.program("init", b"abcde");
        let text = String::from_utf8(archive.bytes).unwrap();
        let header = "070701\
            00000001000081ed0000000000000000000000010000000000000005\
            000000000000000000000000000000000000000500000000";
        assert_eq!(text, format!("{header}init\0\0abcde\0\0\0"));
        assert_eq!(header.len(), 110);
    }
}
