//! Bytes that web browsers send, recorded in `tests/browser/`. A session takes none of them for a packet.

mod fake_guest;

use fake_guest::FakeGuest;
use gdb_frontend::regs::Layout;
use gdb_frontend::session::Action;
use gdb_frontend::session::Session;
use std::path::Path;

#[test]
fn nothing_that_a_browser_sends_reaches_the_guest() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let mut count = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        count += 1;
        // In one part, and byte by byte.
        for size in [bytes.len(), 1] {
            let mut guest = FakeGuest::new(Layout::Aarch64, 2);
            let mut session = Session::new(guest.info());
            let mut actions = Vec::new();
            for piece in bytes.chunks(size) {
                session.push(piece);
                while let Some(action) = session.poll_action() {
                    if let Action::Target(op) = &action {
                        session.complete(guest.answer(op));
                    }
                    actions.push(action);
                }
            }
            assert_eq!(actions, [Action::Close], "{}", path.display());
            assert_eq!(session.foreign_byte(), bytes.first().copied());
        }
    }
    assert!(count >= 8, "only {count} recordings are there");
}
