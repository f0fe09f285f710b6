//! The registers in stop replies for LLDB, which would otherwise ask for them one by one, of each thread, after each stop.

use super::Core;
use super::pending::Pending;
use super::stop_reply;
use crate::framing::PacketWriter;
use crate::regs::Reg;
use crate::regs::RegisterBlock;
use crate::target::Stop;
use crate::target::TargetOp;
use crate::target::TargetReply;
use crate::target::Tid;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// The registers that LLDB needs of each thread to show it: program counter, stack pointer, frame pointer and flags.
const NAMES: &[&str] = &["rip", "pc", "rsp", "sp", "rbp", "x29", "eflags", "cpsr"];

/// A stop reply that waits for registers.
#[derive(Debug)]
pub(super) struct Expedited {
    stop: Stop,
    /// The threads whose registers are not there yet. The first one is being read.
    waiting: VecDeque<Tid>,
    /// The registers of the thread that has stopped.
    registers: Option<RegisterBlock>,
    /// The program counters of the first threads. `None` if one is not known.
    pcs: Option<Vec<u64>>,
}

/// The known registers of [`NAMES`].
fn known(block: &RegisterBlock) -> impl Iterator<Item = (&'static Reg, &[u8])> {
    let table = block.layout().table().iter();
    table
        .filter(|reg| NAMES.contains(&reg.name.as_str()))
        .filter_map(|reg| Some((reg, block.get(reg.num)?)))
}

fn pc(block: &RegisterBlock) -> Option<u64> {
    let (_, value) = known(block).find(|(reg, _)| matches!(reg.name.as_str(), "rip" | "pc"))?;
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// The registers for `jThreadsInfo`. The numbers are decimal.
pub(super) fn json(block: &RegisterBlock) -> String {
    let mut list = String::from("{");
    for (reg, value) in known(block) {
        let comma = if list.len() > 1 { "," } else { "" };
        let _ = write!(list, "{comma}\"{}\":\"", reg.num.0);
        for byte in value {
            let _ = write!(list, "{byte:02x}");
        }
        list.push('"');
    }
    list.push('}');
    list
}

impl Core {
    /// Reads the registers of the threads that the stop reply shows: of all threads if the client wants the list, or of the thread that has stopped.
    pub(super) fn send_stop_with_registers(&mut self, stop: Stop) {
        let waiting: VecDeque<Tid> = match self.client.threads_in_stop {
            true => self.threads.iter().collect(),
            false => VecDeque::from([self.current]),
        };
        let expedited = Expedited {
            stop,
            waiting,
            registers: None,
            pcs: Some(Vec::new()),
        };
        self.next_registers(expedited);
    }

    fn next_registers(&mut self, expedited: Expedited) {
        match expedited.waiting.front() {
            Some(&thread) => {
                self.ask(TargetOp::ReadRegisters { thread }, Pending::Stop(expedited));
            }
            None => self.send_expedited(&expedited),
        }
    }

    /// Registers that cannot be read are left out.
    pub(super) fn add_registers(&mut self, mut expedited: Expedited, reply: TargetReply) {
        let thread = expedited.waiting.pop_front();
        let block = match reply {
            TargetReply::Registers(block) => Some(block),
            _ => None,
        };
        match (&mut expedited.pcs, block.as_ref().and_then(pc)) {
            (Some(pcs), Some(pc)) => pcs.push(pc),
            (pcs, _) => *pcs = None,
        }
        if thread == Some(self.current) {
            expedited.registers = block;
        }
        self.next_registers(expedited);
    }

    fn send_expedited(&mut self, expedited: &Expedited) {
        let mut packet = stop_reply::packet(expedited.stop.reason, self.current, self.client);
        for (reg, value) in expedited.registers.iter().flat_map(known) {
            // LLDB takes only a key of two digits for the number of a register.
            let Ok(num) = u8::try_from(reg.num.0) else {
                continue;
            };
            packet.hex(&[num]);
            packet.str(":");
            packet.hex(value);
            packet.str(";");
        }
        if self.client.threads_in_stop {
            let threads = self.threads.iter().map(|thread| u64::from(thread.get()));
            add_list(&mut packet, "threads:", threads);
            if let Some(pcs) = &expedited.pcs {
                add_list(&mut packet, "thread-pcs:", pcs.iter().copied());
            }
        }
        self.outbox.packet(packet.finish());
    }
}

fn add_list(packet: &mut PacketWriter, key: &str, numbers: impl Iterator<Item = u64>) {
    packet.str(key);
    for (position, number) in numbers.enumerate() {
        if position > 0 {
            packet.str(",");
        }
        packet.number(number);
    }
    packet.str(";");
}
