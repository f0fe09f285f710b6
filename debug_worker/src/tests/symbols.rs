//! The file with the symbols, as a client reads it.

use super::bed::Bed;
use crate::SessionSettings;
use crate::SymbolFile;
use std::fs;
use std::path::Path;

fn bed(path: &Path) -> Bed {
    Bed::with(SessionSettings {
        symbols: Some(SymbolFile::open(path).expect("a file")),
        ..Default::default()
    })
}

fn open(path: &Path) -> String {
    let hex: String = path
        .display()
        .to_string()
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("vFile:open:{hex},0,0")
}

#[test]
fn a_client_reads_the_file_that_the_server_names_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vmlinux");
    let other = folder.path().join("other");
    for (path, bytes) in [(&path, "0123456789"), (&other, "secret")] {
        fs::write(path, bytes).expect("writable");
    }
    let bed = bed(&path);
    for _ in 0..2 {
        let mut client = bed.attach();
        let name = client.ask("qXfer:exec-file:read::0,1000");
        assert_eq!(name, format!("l{}", path.display()));
        let link = folder.path().join("link");
        let roundabout = folder.path().join("x/../vmlinux");
        for other in [&other, &link, &roundabout] {
            assert_eq!(client.ask(&open(other)), "F-1,2", "{}", other.display());
        }
        assert_eq!(client.ask(&open(&path)), "F0");
        assert_eq!(client.ask("vFile:pread:0,4,3"), "F4;3456");
        assert_eq!(client.ask("vFile:pread:0,100,8"), "F2;89");
        assert_eq!(client.ask("vFile:pread:0,100,ffffffffffffffff"), "F-1,5");
        // The next client begins without open files, whatever this one has left.
        client.ask("D");
    }
}

#[test]
fn a_file_that_has_become_shorter_ends_earlier() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vmlinux");
    fs::write(&path, "0123456789").expect("writable");
    let bed = bed(&path);
    let mut client = bed.attach();
    assert_eq!(client.ask(&open(&path)), "F0");
    fs::write(&path, "01").expect("writable");
    assert_eq!(client.ask("vFile:pread:0,a,0"), "F2;01");
    assert_eq!(client.ask("vFile:pread:0,a,5"), "F0;");
}
