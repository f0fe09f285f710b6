//! The demo guest's ELF file as a file that GDB can read.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

const NAME: &str = "demo-guest.elf";

/// Writes the file to the user's cache folder, the same place each time, and says where it is.
///
/// Written aside and renamed: another Trapgate, or a GDB that has it open, never sees half a file.
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

/// As the XDG base directory specification has it; without a home, the temporary folder.
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
