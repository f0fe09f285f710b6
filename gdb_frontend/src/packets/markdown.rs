//! The list as a page for people.

use super::Announced;
use super::Packet;
use super::SECTIONS;
use super::Support;
use std::fmt::Write;

/// The Guide's page. Rows one after the other that say the same are one row.
pub(super) fn page() -> String {
    let mut page = String::from(
        "# Packets\n\nEvery packet of GDB's manual (GDB 18) and of LLDB's document (LLDB 22), and QEMU's. Made by `TRAPGATE_BLESS=1 cargo test -p trapgate-gdb-frontend` from the list in\n\
         `gdb_frontend/src/packets`, from which the server also computes its reply to `qSupported`.\n\n\
         A test sends each packet to a session: one without support gets an empty reply or an error, the others do not. Names that end in `.txt` are transcripts, exact bytes, in\n\
         `gdb_frontend/tests/transcripts/`. The other names are test functions.\n",
    );
    for section in SECTIONS {
        write!(
            page,
            "\n## {}\n\n| packets | supported | shown by, or why not |\n|---|---|---|\n",
            section.title
        )
        .expect("writing to a string does not fail");
        for rows in section
            .packets
            .chunk_by(|one, next| one.support == next.support)
        {
            row(&mut page, rows);
        }
    }
    page
}

fn row(page: &mut String, rows: &[Packet]) {
    let names: Vec<String> = rows
        .iter()
        .map(|packet| match packet.announced {
            Announced::Nothing => format!("`{}`", packet.name),
            Announced::Always(feature)
            | Announced::ErrorMessage(feature)
            | Announced::WithSymbols(feature) => {
                format!("`{}` (announced by `{feature}`)", packet.name)
            }
        })
        .collect();
    let (word, reason) = match rows[0].support {
        Support::Yes(tests) => {
            let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
            ("yes", tests.join(", "))
        }
        Support::No(why) => ("no", why.to_owned()),
    };
    writeln!(page, "| {} | {word} | {reason} |", names.join(" "))
        .expect("writing to a string does not fail");
}
