//! Finds programs as `execvp` does (exec(3)): in the folders of `PATH`.

use rustix::fs::Access;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The program with a name that has no slash.
pub(crate) fn find(name: &OsStr) -> Option<PathBuf> {
    folders()
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

/// The program with the name `name-NUMBER` and the highest number.
pub(crate) fn newest(name: &str) -> Option<PathBuf> {
    let version = |path: &Path| -> Option<u32> {
        let version = path.file_name()?.to_str()?.strip_prefix(name)?;
        version.strip_prefix('-')?.parse().ok()
    };
    folders()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((version(&path)?, path)))
        .filter(|(_, path)| is_program(path))
        .max_by_key(|(version, _)| *version)
        .map(|(_, path)| path)
}

fn folders() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH");
    path.into_iter()
        .flat_map(|path| env::split_paths(&path).collect::<Vec<_>>())
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}
