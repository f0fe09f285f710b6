//! Tests of the whole server over real sockets, with a fake VM. Each file tests one promise.

mod bed;
mod connections;
mod ends;
mod fake_memory;
mod fake_vm;
mod hostile;
mod log_text;
mod observability;
mod owner;
mod races;
mod ranges;
mod sessions;
mod symbols;
mod tables;
mod threads;
mod transport;
mod wrong_protocol;

pub(crate) use log_text::Text;

/// The bytes that web browsers send to a port, by the name of the file.
pub(crate) fn recordings() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../gdb_frontend/tests/browser");
    let recordings: Vec<_> = std::fs::read_dir(folder)
        .expect("the recordings are there")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| {
            let bytes = std::fs::read(&path).expect("readable");
            (path.display().to_string(), bytes)
        })
        .collect();
    assert!(recordings.len() >= 8, "{recordings:?}");
    recordings
}
