//! The demo guest's ELF file, in a place where GDB can read it.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

const NAME: &str = "demo-guest.elf";

/// Writes the file to the user's cache folder, always with the same path, and returns the path.
///
/// The file is written under another name and renamed, so another Trapgate, or a GDB that has the file open, never sees
/// an incomplete file.
pub(crate) fn write_elf() -> io::Result<PathBuf> {
    let folder = cache_folder().join("trapgate");
    write_to(&folder)
}

fn write_to(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(NAME);
    if fs::read(&path).is_ok_and(|present| present == demo_guest::ELF) {
        return Ok(path);
    }
    fs::create_dir_all(folder)?;
    let aside = folder.join(format!("{NAME}.{}", std::process::id()));
    fs::write(&aside, demo_guest::ELF)?;
    fs::rename(&aside, &path)?;
    Ok(path)
}

/// The cache folder according to the XDG base directory specification. Without a home folder, the temporary folder.
fn cache_folder() -> PathBuf {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    variable("XDG_CACHE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_is_replaced_and_the_same_one_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("not yet there");
        let path = write_to(&inner).expect("written");
        assert_eq!(fs::read(&path).expect("readable"), demo_guest::ELF);
        fs::write(&path, b"older").expect("writable");
        let again = write_to(&inner).expect("replaced");
        assert_eq!(
            (&again, fs::read(&again).expect("readable").as_slice()),
            (&path, demo_guest::ELF)
        );
        assert_eq!(fs::read_dir(&inner).expect("a folder").count(), 1);
    }
}
