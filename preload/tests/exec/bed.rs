//! VMMs under `trapgate exec`.

pub(crate) mod qemu;

use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ChildStdin;
use std::process::Command;
use test_machine::packets::Packets;
use test_machine::running::Running;
use test_machine::running::program;
use test_machine::running::trapgate;

/// The library, as cargo has built it for these tests.
pub(crate) fn library() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    let library = test.with_file_name("libtrapgate_preload.so");
    assert!(library.is_file(), "no {}", library.display());
    library
}

/// What a command of the monitor prints.
pub(crate) fn monitor(packets: &mut Packets<TcpStream>, command: &str) -> String {
    let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
    let first = packets.ask(&format!("qRcmd,{hex}"));
    let (text, last) = console(packets, first);
    text + &from_hex(last.trim_end_matches("OK"))
}

/// The console output that begins with this reply, and the reply behind the output.
pub(crate) fn console(packets: &mut Packets<TcpStream>, first: String) -> (String, String) {
    let mut reply = first;
    let mut text = String::new();
    while let Some(piece) = reply.strip_prefix('O').filter(|piece| *piece != "K") {
        text += &from_hex(piece);
        reply = packets.reply().expect("more of the answer");
    }
    (text, reply)
}

/// The text of hex digits in which repeated digits are shortened.
fn from_hex(digits: &str) -> String {
    let mut plain = Vec::new();
    let mut wire = digits.bytes();
    while let Some(byte) = wire.next() {
        match (byte, plain.last().copied()) {
            // So many times more than once, by the GDB manual, node "Overview".
            (b'*', Some(last)) => {
                let more = wire.next().expect("a count") - 29;
                plain.extend(std::iter::repeat_n(last, more.into()));
            }
            _ => plain.push(byte),
        }
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hex");
    let pairs = plain.chunks_exact(2);
    let bytes = pairs.map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])));
    let bytes = bytes.collect::<Result<Vec<u8>, _>>().expect("two digits");
    String::from_utf8(bytes).expect("text")
}

/// The path of a program of the workspace.
pub(crate) fn built(name: &str) -> String {
    let program = program(name).get_program().to_owned();
    program.into_string().expect("text")
}

/// `trapgate exec OPTIONS -- COMMAND`, with a free port.
pub(crate) fn exec(options: &[&str], command: &[&str]) -> Command {
    let library = library();
    let mut exec = trapgate(&["exec", "--gdb", "127.0.0.1:0", "--library"]);
    exec.arg(library).args(options).arg("--").args(command);
    exec
}

/// A VMM that obeys lines on its standard input.
pub(crate) struct Vmm {
    pub(crate) process: Running,
    pub(crate) input: ChildStdin,
    /// Lines that a test has read while it waited for an answer of the VMM.
    pub(crate) passed_over: Vec<String>,
}

impl Vmm {
    /// Returns when the debug server listens.
    #[track_caller]
    pub(crate) fn start(command: Command) -> Self {
        let (mut process, input) = Running::spawn_with_input(command);
        process.gdb_line();
        Self::of(process, input)
    }

    /// One that has been started.
    pub(crate) fn of(process: Running, input: ChildStdin) -> Self {
        let passed_over = Vec::new();
        Self {
            process,
            input,
            passed_over,
        }
    }

    /// A session by packets. The guest is stopped by then.
    pub(crate) fn packets(&mut self) -> Packets<TcpStream> {
        let mut packets = Packets::connect(&self.process.address());
        packets.ask("qSupported:swbreak+;hwbreak+");
        packets
    }

    /// Types a line, by one write: QEMU may end at the last brace, before it has read the end of the line.
    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        let typed = self.input.write_all(format!("{line}\n").as_bytes());
        typed.unwrap_or_else(|error| panic!("the VMM does not read `{line}`: {error}"));
    }
}
