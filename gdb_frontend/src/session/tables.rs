//! The tables of GDB's `info os` (GDB manual, node "Operating System Information").

use super::Core;
use super::pending::Pending;
use super::transfer;
use crate::command::TableName;
use crate::target::GuestTable;
use crate::target::TargetError;
use crate::target::TargetOp;

impl GuestTable {
    /// All tables, with the name of each and a text about it.
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Vps, "vcpus", "The vCPUs and their states"),
        (
            Self::Breakpoints,
            "breakpoints",
            "The breakpoints in the guest and their hits",
        ),
        (Self::Memory, "memory", "The ranges of physical RAM"),
    ];

    /// The titles of the columns, with a wide one at the end, because GDB makes the others 10 characters wide. Each row has a value for each of them.
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Vps => &["vCPU", "thread", "state"],
            Self::Breakpoints => &["address", "kind", "length", "hits", "passes", "armed"],
            Self::Memory => &["first", "last", "bytes"],
        }
    }
}

impl Core {
    /// `qXfer:osdata:read`. The table is read when the client begins to read it.
    pub(super) fn read_table(&mut self, name: TableName, offset: u64, len: u64) {
        if offset > 0 {
            let packet = transfer::piece(&self.table, offset, len);
            return self.outbox.packet(packet);
        }
        let found = |name: &[u8]| {
            GuestTable::ALL
                .into_iter()
                .find(|(_, known, _)| known.as_bytes() == name)
        };
        match name {
            TableName::List => self.send_table(list_of_tables(), len),
            TableName::Named(name) => match found(&name) {
                Some((table, ..)) => self.ask(TargetOp::Table(table), Pending::Table(table, len)),
                None => {
                    let text = "there is no such table; `info os` lists the tables".to_owned();
                    self.error(&TargetError { errno: 22, text });
                }
            },
        }
    }

    pub(super) fn add_table(&mut self, table: GuestTable, rows: &[Vec<String>], len: u64) {
        self.send_table(document("", table.columns(), rows), len);
    }

    fn send_table(&mut self, document: Vec<u8>, len: u64) {
        self.table = document;
        let packet: Vec<u8> = transfer::piece(&self.table, 0, len);
        self.outbox.packet(packet);
    }
}

fn list_of_tables() -> Vec<u8> {
    let rows = GuestTable::ALL.map(|(_, name, about)| {
        // The third column is the title in graphical clients.
        [name, about, name].map(str::to_owned).to_vec()
    });
    document("types", &["Type", "Description", "Title"], &rows)
}

/// `<osdata type="types"><item><column name="Type">processes</column>...`.
fn document(kind: &str, columns: &[&str], rows: &[Vec<String>]) -> Vec<u8> {
    let mut document = b"<?xml version=\"1.0\"?>\n<osdata type=\"".to_vec();
    document.extend_from_slice(kind.as_bytes());
    document.extend_from_slice(b"\">\n");
    for row in rows {
        document.extend_from_slice(b"<item>");
        for (column, value) in columns.iter().zip(row) {
            document.extend_from_slice(format!("<column name=\"{column}\">").as_bytes());
            transfer::escaped(&mut document, value);
            document.extend_from_slice(b"</column>");
        }
        document.extend_from_slice(b"</item>\n");
    }
    document.extend_from_slice(b"</osdata>\n");
    document
}
