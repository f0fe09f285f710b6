//! A GDB that gets its commands one at a time, so that a test can do something else between two commands.

use crate::running::Running;
use std::io::Write as _;
use std::process::ChildStdin;
use std::process::Command;

/// A running GDB.
pub struct TypedGdb {
    running: Running,
    input: ChildStdin,
    commands: u32,
    _folder: tempfile::TempDir,
}

impl TypedGdb {
    /// Starts GDB with the symbols of an ELF file, given by its contents, and connects it to `address`.
    pub fn connect(elf: &[u8], address: &str) -> Self {
        Self::connect_with(elf, &[], address)
    }

    /// As [`connect`](Self::connect), after these commands.
    pub fn connect_with(elf: &[u8], commands: &[&str], address: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("guest.elf");
        std::fs::write(&file, elf).expect("room for a small file");
        let mut command = Command::new("gdb");
        command.env("LC_ALL", "C.UTF-8").args(["-nx", "-q"]);
        let settings = ["set pagination off", "set width 0", "set confirm off"];
        for setting in settings.iter().chain(commands) {
            command.args(["-iex", setting]);
        }
        let (running, input) = Running::spawn_with_input(command);
        let mut gdb = Self {
            running,
            input,
            commands: 0,
            _folder: folder,
        };
        gdb.say(&format!("file {}", file.display()));
        gdb.say(&format!("target remote {address}"));
        gdb
    }

    /// Waits for a text that GDB prints without a command.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        self.running.wait_for(text);
    }

    /// Gives a command, and returns what GDB prints.
    #[track_caller]
    pub fn say(&mut self, command: &str) -> String {
        self.commands += 1;
        let end = format!("done {}", self.commands);
        writeln!(self.input, "{command}\necho \\n{end}\\n").expect("GDB reads");
        self.running.text_up_to(&end)
    }
}
