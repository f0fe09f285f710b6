//! Replies that only LLDB asks for.

use super::Core;
use super::pending::Pending;
use super::refusals::Refused;
use crate::command::Command;
use crate::framing::PACKET_SIZE;
use crate::framing::PacketWriter;
use crate::regs::Layout;
use crate::target::TargetOp;
use crate::target::TargetReply;
use std::collections::VecDeque;

/// The reply to `qHostInfo`. It names no architecture and no operating system: LLDB takes the architecture from the target description, and would look for the
/// dynamic linker of an operating system. With the timeout of 30 s instead of 5 s, LLDB waits for a `monitor` command that takes long, and for a busy host.
pub(super) const HOST_INFO: &str =
    "endian:little;ptrsize:8;default_packet_timeout:30;watchpoint_exceptions_received:after;";

/// The reply to `qProcessInfo`. Without it LLDB asks again and again. The guest is process 1, as for a client without this packet.
pub(super) const PROCESS_INFO: &str = "pid:1;endian:little;ptrsize:8;";

/// The reply to `qGDBServerVersion`.
pub(super) const VERSION: &str = concat!("name:trapgate;version:", env!("CARGO_PKG_VERSION"), ";");

/// The maximum number of bytes in the reply to `MultiMemRead`. Each byte may need an escape, and the numbers of bytes are in front.
const MOST_BYTES: usize = PACKET_SIZE / 2 - 4 * crate::command::MOST_RANGES;

/// Ranges of memory that are being read.
#[derive(Debug)]
pub(super) struct Ranges {
    /// The ranges that are not read yet.
    waiting: VecDeque<(u64, u64)>,
    /// How many bytes each range gave.
    lengths: Vec<usize>,
    bytes: Vec<u8>,
}

/// Breakpoints that are being inserted and removed.
#[derive(Debug)]
pub(super) struct Breakpoints {
    /// The packets that are not carried out yet.
    waiting: VecDeque<Vec<u8>>,
    /// The result of each packet.
    results: Vec<String>,
    /// The breakpoint that is being inserted.
    inserted: Option<crate::target::Breakpoint>,
}

impl Core {
    /// `num:4;`: x86 has four debug registers. LLDB takes an empty reply for an unknown number.
    pub(super) fn watchpoint_support(&mut self) {
        self.text(match self.info.layout {
            Layout::X86_64 { .. } => "num:4;",
            Layout::Aarch64 => "",
        });
    }

    /// `MultiMemRead`: reads the ranges one after the other.
    pub(super) fn read_ranges(&mut self, ranges: Vec<(u64, u64)>) {
        self.next_range(Ranges {
            waiting: ranges.into(),
            lengths: Vec::new(),
            bytes: Vec::new(),
        });
    }

    fn next_range(&mut self, mut ranges: Ranges) {
        while let Some((address, len)) = ranges.waiting.pop_front() {
            let room = (u64::MAX - address).saturating_add(1);
            let left = MOST_BYTES - ranges.bytes.len();
            let len = usize::try_from(len.min(room)).map_or(left, |len| len.min(left));
            if len > 0 {
                return self.ask(self.read_op(address, len), Pending::Ranges(ranges));
            }
            ranges.lengths.push(0);
        }
        let mut packet = PacketWriter::with_capacity(ranges.bytes.len());
        for (position, &len) in ranges.lengths.iter().enumerate() {
            if position > 0 {
                packet.str(",");
            }
            packet.number(len as u64);
        }
        packet.str(";");
        packet.binary(&ranges.bytes);
        self.outbox.packet(packet.finish());
    }

    /// A range that cannot be read has no bytes.
    pub(super) fn add_range(&mut self, mut ranges: Ranges, reply: TargetReply) {
        let bytes = match reply {
            TargetReply::Memory(bytes) => bytes,
            _ => Vec::new(),
        };
        let left = MOST_BYTES - ranges.bytes.len();
        let bytes = &bytes[..bytes.len().min(left)];
        ranges.lengths.push(bytes.len());
        ranges.bytes.extend_from_slice(bytes);
        self.next_range(ranges);
    }

    /// `jMultiBreakpoint`: "The stub must execute the sequence of `request`s in the order they appear [...]: individual requests may fail, and the stub must process
    /// subsequent requests regardless of previous failures."
    pub(super) fn change_breakpoints(&mut self, requests: Vec<Vec<u8>>) {
        self.next_breakpoint(Breakpoints {
            waiting: requests.into(),
            results: Vec::new(),
            inserted: None,
        });
    }

    fn next_breakpoint(&mut self, mut breakpoints: Breakpoints) {
        while let Some(request) = breakpoints.waiting.pop_front() {
            breakpoints.inserted = None;
            let op = match Command::parse(&request) {
                Ok(Command::InsertBreakpoint {
                    breakpoint,
                    conditions,
                    commands,
                }) => {
                    breakpoints.inserted = Some(breakpoint);
                    TargetOp::InsertBreakpoint {
                        breakpoint,
                        conditions,
                        commands,
                    }
                }
                Ok(Command::RemoveBreakpoint(breakpoint)) => TargetOp::RemoveBreakpoint(breakpoint),
                _ => {
                    breakpoints.results.push("\"E16\"".to_owned());
                    continue;
                }
            };
            return self.ask(op, Pending::Breakpoints(breakpoints));
        }
        let list = format!("{{\"results\":[{}]}}", breakpoints.results.join(","));
        let mut packet = PacketWriter::with_capacity(list.len());
        packet.binary(list.as_bytes());
        self.outbox.packet(packet.finish());
    }

    /// The user gets the reason of a refused breakpoint later, as after `Z`.
    pub(super) fn add_result(&mut self, mut breakpoints: Breakpoints, reply: TargetReply) {
        let inserted = breakpoints.inserted.map(Refused::Breakpoint);
        let result = match reply {
            TargetReply::Error(error) => {
                if let Some(refused) = inserted {
                    self.refusals.add(refused, error.text);
                }
                format!("\"E{:02x}\"", error.errno)
            }
            _ => {
                if let Some(accepted) = inserted {
                    self.refusals.withdraw(accepted);
                }
                "\"OK\"".to_owned()
            }
        };
        breakpoints.results.push(result);
        self.next_breakpoint(breakpoints);
    }
}
