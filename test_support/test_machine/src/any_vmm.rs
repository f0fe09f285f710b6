//! A VMM under test: a command that boots an ELF kernel by its PVH note, holds it at its first instruction, and has a
//! GDB server.
//!
//! The variable [`COMMAND`] contains the command; the default is `trapgate`. Spaces separate its words, and in the
//! words
//!
//! - `{guest}` is replaced by the guest's ELF file (`guest/ticking.S` says what the tests' own guest needs; 64 MiB are
//!   enough);
//! - `{cpus}` is replaced by the number of CPUs, which is 1 for the tests' own guest. Without `{cpus}` the command starts
//!   guests with one CPU only;
//! - `{address}` is replaced by the `HOST:PORT` on which the server has to listen. Without `{address}` the command has
//!   to print a line `gdb: listening on HOST:PORT`;
//! - `{trapgate}`, as the first word, is replaced by the path of the program that cargo has built.

use crate::packets::Packets;
use crate::running::DEADLINE;
use crate::running::Running;
use crate::running::kvm_here;
use crate::running::program;
use crate::running::trapgate;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// The name of the variable with the command.
pub const COMMAND: &str = "TRAPGATE_CONFORMANCE_VMM";

/// The contents of the ELF file.
const GUEST: &[u8] = include_bytes!(env!("TICKING_ELF"));

/// The address of the guest's loop: `inc %rbx`, `nop`, `nop` and a jump back.
pub const LOOP: u64 = 0x10_0200;
/// The address of the instruction behind the increment.
pub const SITE: u64 = LOOP + 3;
/// The addresses of the loop's instructions.
pub const IN_LOOP: [u64; 4] = [LOOP, SITE, SITE + 1, SITE + 2];
/// The address of the number of ticks, which has eight bytes.
pub const TICKS: u64 = 0x10_1000;

/// A running VMM with a guest.
pub struct Vmm {
    /// The process of the VMM.
    pub process: Running,
    /// The address of the debug server.
    pub address: String,
    /// The path of the guest's ELF file, for GDB.
    pub guest: String,
    _folder: tempfile::TempDir,
}

impl Vmm {
    /// Starts the VMM with the tests' own guest and waits until its server listens. `None`, with the reason printed, if
    /// this host has no KVM.
    ///
    /// # Panics
    /// The VMM does not start.
    pub fn start() -> Option<Self> {
        Self::start_guest(GUEST, 1)
    }

    /// As [`start`](Self::start), with another guest. `None`, with the reason printed, also if the command cannot start
    /// a guest with so many CPUs.
    pub fn start_guest(elf: &[u8], cpus: usize) -> Option<Self> {
        if !kvm_here() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let guest = folder.path().join("guest.elf");
        std::fs::write(&guest, elf).expect("room for a small file");
        let guest = guest.to_str().expect("a temporary path is text").to_owned();
        let (process, address) = match std::env::var(COMMAND) {
            Ok(template) if cpus > 1 && !template.contains("{cpus}") => {
                println!(
                    "SKIP: the command in {COMMAND} has no {{cpus}}, and this test needs {cpus}"
                );
                return None;
            }
            Ok(template) => by_template(&template, &guest, cpus),
            Err(_) => printing(trapgate(&[
                "run",
                "--kernel",
                &guest,
                "--cpus",
                &cpus.to_string(),
                "--memory",
                "64M",
                "--gdb",
                "127.0.0.1:0",
            ])),
        };
        Some(Self {
            process,
            address,
            guest,
            _folder: folder,
        })
    }

    /// Begins a session by packets and reads the first reply.
    pub fn packets(&self) -> Packets<TcpStream> {
        let mut packets = Packets::connect(&self.address);
        packets.ask("qSupported:swbreak+;hwbreak+");
        packets
    }

    /// Lets the guest run from its first instruction, without a debugger.
    ///
    /// # Panics
    /// The server does not let it run.
    pub fn let_run(&self) {
        let mut packets = self.packets();
        packets.ask("?");
        let reply = packets.ask("D");
        assert_eq!(reply, "OK", "to `D`");
    }
}

fn by_template(template: &str, guest: &str, cpus: usize) -> (Running, String) {
    // Another process may take the port before the VMM does. Then the VMM reports it, and the test fails.
    let address = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .to_string();
    let mut words = template.split_whitespace().map(|word| {
        word.replace("{guest}", guest)
            .replace("{address}", &address)
            .replace("{cpus}", &cpus.to_string())
    });
    let mut command = match words.next() {
        Some(word) if word == "{trapgate}" => program("trapgate"),
        Some(word) => Command::new(word),
        None => panic!("{COMMAND} is empty"),
    };
    command.args(words).stdin(Stdio::null());
    if template.contains("{address}") {
        listening(command, address)
    } else {
        printing(command)
    }
}

/// Starts a VMM that prints its address.
fn printing(command: Command) -> (Running, String) {
    let mut process = Running::spawn(command);
    let address = process.address();
    (process, address)
}

/// Starts a VMM that gets its address. The test looks for the port in the list of listening ports, because a connection
/// would count as a debugger.
fn listening(command: Command, address: String) -> (Running, String) {
    let mut process = Running::spawn(command);
    let (_, port) = address.rsplit_once(':').expect("made here");
    let port: u16 = port.parse().expect("made here");
    let end = Instant::now() + DEADLINE;
    while !is_listened_at(port) {
        assert!(
            process.is_running(),
            "the VMM ended before it listened: {:?}",
            process.finish()
        );
        assert!(Instant::now() < end, "the VMM does not listen at {address}");
        // There is no event for a socket of another process.
        thread::sleep(Duration::from_millis(20));
    }
    (process, address)
}

/// proc(5), `/proc/net/tcp`: the second field is the local address, and state 0A is LISTEN.
fn is_listened_at(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields
            .next()
            .is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        local && fields.nth(1) == Some("0A")
    })
}

/// The registers that every server returns for `g` with a 64-bit guest: RBX, the second register, and RIP, the
/// seventeenth.
///
/// # Panics
/// The reply is an error or too short.
#[track_caller]
pub fn turns_and_rip(packets: &mut Packets<TcpStream>) -> (u64, u64) {
    let reply = packets.ask("g");
    let word = |number: usize| {
        reply
            .get(16 * number..16 * number + 16)
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .unwrap_or_else(|| panic!("`g` was answered `{reply}`"))
            .swap_bytes()
    };
    (word(1), word(16))
}
