//! A debugger for a running Linux guest that sends one packet for each operation.

use std::net::TcpStream;
use test_machine::packets::Packets;

/// GDB's register numbers.
pub(crate) const RDI: u32 = 5;
const RIP: u32 = 16;

/// Offsets in Linux' `struct pt_regs` on x86-64. The entries of system calls and exceptions get a pointer to it in RDI.
pub(crate) const ARGUMENT: u64 = 0x70;
pub(crate) const CALL_NUMBER: u64 = 0x78;
pub(crate) const CODE_SEGMENT: u64 = 0x88;

/// At the end of each round, the guest's exercises call `getpgid` with this number plus the number of the round.
pub(crate) const MARK: u64 = 1_000_000;

/// The maximum length of a read by one packet.
const PAGE: u64 = 0x1000;

pub(crate) struct Debugger {
    packets: Packets<TcpStream>,
}

impl Debugger {
    /// Connects, which stops the guest.
    pub(crate) fn attach(address: &str) -> Self {
        let mut packets = Packets::connect(address);
        let features = packets.ask("qSupported:swbreak+;hwbreak+");
        assert!(features.contains("swbreak+"), "{features}");
        let stop = packets.ask("?");
        assert!(stop.starts_with('T'), "{stop}");
        Self { packets }
    }

    /// Detaches. The guest runs.
    pub(crate) fn detach(mut self) {
        assert_eq!(self.packets.ask("D"), "OK");
    }

    /// Runs the guest and disconnects without a detach.
    pub(crate) fn vanish_while_it_runs(mut self) {
        self.packets.send_raw(&test_machine::packets::packet(b"c"));
    }

    #[track_caller]
    pub(crate) fn set(&mut self, kind: u32, address: u64, len: u32) {
        let reply = self.packets.ask(&format!("Z{kind},{address:x},{len:x}"));
        assert_eq!(reply, "OK", "Z{kind} at {address:#x}");
    }

    /// Runs the guest until it stops. Returns the stop reply.
    pub(crate) fn go_on(&mut self) -> String {
        self.go_on_with_words().0
    }

    /// As [`go_on`](Self::go_on), with the text for people that comes before the stop.
    pub(crate) fn go_on_with_words(&mut self) -> (String, String) {
        let mut words = String::new();
        let mut reply = self.packets.ask("c");
        while let Some(piece) = reply.strip_prefix('O') {
            words += &String::from_utf8_lossy(&bytes(piece));
            reply = self.packets.reply().expect("a stop");
        }
        (reply, words)
    }

    /// Runs the guest to a breakpoint of this kind (`swbreak`, `hwbreak`). Returns the program counter.
    #[track_caller]
    pub(crate) fn run_into(&mut self, kind: &str) -> u64 {
        let stop = self.go_on();
        assert!(
            stop.starts_with("T05") && stop.contains(&format!("{kind}:;")),
            "{stop} at {:#x}",
            self.register(RIP)
        );
        self.register(RIP)
    }

    /// The program counter of the stopped guest.
    pub(crate) fn place(&mut self) -> u64 {
        self.register(RIP)
    }

    /// A register, by GDB's number.
    pub(crate) fn register(&mut self, number: u32) -> u64 {
        let bytes = bytes(&self.packets.ask(&format!("p{number:x}")));
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }

    /// A field of the registers that the kernel saved at its entry. The guest has stopped at the first function behind
    /// the entry.
    pub(crate) fn saved(&mut self, field: u64) -> u64 {
        let at = self.register(RDI) + field;
        let word = self.read(at, 8);
        u64::from_le_bytes(word.try_into().expect("eight bytes"))
    }

    #[track_caller]
    pub(crate) fn read(&mut self, address: u64, len: u64) -> Vec<u8> {
        let reply = self.packets.ask(&format!("m{address:x},{len:x}"));
        let read = bytes(&reply);
        assert_eq!(read.len() as u64, len, "m{address:x},{len:x}: {reply}");
        read
    }

    /// The pages that contain these addresses, each once, in the order of their addresses.
    pub(crate) fn pages(&mut self, addresses: impl Iterator<Item = u64>) -> Vec<(u64, Vec<u8>)> {
        let pages: std::collections::BTreeSet<u64> =
            addresses.map(|address| address & !(PAGE - 1)).collect();
        pages
            .into_iter()
            .map(|page| (page, self.read(page, PAGE)))
            .collect()
    }

    /// The output of a `monitor` command.
    pub(crate) fn monitor(&mut self, command: &str) -> String {
        let mut text = String::new();
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut reply = self.packets.ask(&format!("qRcmd,{hex}"));
        while let Some(piece) = reply.strip_prefix('O').filter(|piece| *piece != "K") {
            text += &String::from_utf8_lossy(&bytes(piece));
            reply = self.packets.reply().expect("more of the answer");
        }
        text += &String::from_utf8_lossy(&bytes(reply.strip_suffix("OK").unwrap_or(&reply)));
        text
    }
}

/// Decodes hex with run-length encoding: `0*"` means six zeros (GDB manual, node "Overview").
#[track_caller]
fn bytes(reply: &str) -> Vec<u8> {
    let mut digits: Vec<u8> = Vec::new();
    let mut wire = reply.bytes();
    while let Some(byte) = wire.next() {
        match byte {
            b'*' => {
                let more = wire.next().expect("a count") - 29;
                let last = *digits.last().expect("something to repeat");
                digits.extend(std::iter::repeat_n(last, usize::from(more)));
            }
            digit => digits.push(digit),
        }
    }
    let digits = String::from_utf8(digits).expect("hex");
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hex");
            u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("no hex: {reply}"))
        })
        .collect()
}
