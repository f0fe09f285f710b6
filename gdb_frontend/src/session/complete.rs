//! Converts the result of an operation to the reply.

use super::Core;
use super::Guest;
use super::expedited;
use super::files::FileError;
use super::pending::Pending;
use super::pending::Reply;
use super::refusals::Refused;
use super::stop_reply;
use super::trace::frame_info;
use super::transfer;
use crate::command::MemoryFormat;
use crate::command::step_flags;
use crate::framing::PacketWriter;
use crate::regs::RegNum;
use crate::regs::RegisterBlock;
use crate::target::EndSignal;
use crate::target::MemoryRegion;
use crate::target::StopReason;
use crate::target::TargetError;
use crate::target::TargetOp;
use crate::target::TargetReply;
use crate::target::Tid;
use crate::target::TraceReply;

/// The name of a region that is mapped to a device or to nothing.
const NO_RAM: &[u8] = b"no RAM";

impl Core {
    pub(super) fn complete(&mut self, pending: Pending, reply: TargetReply) {
        match (pending, reply) {
            (Pending::Ok, TargetReply::Done | TargetReply::StepInterrupts(_)) => self.ok(),
            (Pending::StepFlags, TargetReply::StepInterrupts(interrupts)) => {
                self.text(&format!("{:#x}", step_flags(interrupts)));
            }
            (Pending::Registers, TargetReply::Registers(block)) => self.send_registers(&block),
            (Pending::Register(num), TargetReply::Registers(block)) => {
                self.send_register(num, &block);
            }
            (Pending::WriteDifferent { thread, hex }, TargetReply::Registers(block)) => {
                self.write_different(thread, &hex, &block);
            }
            (Pending::Memory(format), TargetReply::Memory(data)) => {
                self.send_memory(format, &data);
            }
            (Pending::FileRead(len), TargetReply::FileBytes(bytes)) => {
                self.send_file(&bytes[..bytes.len().min(len)]);
            }
            (Pending::FileRead(_), TargetReply::Error(_)) => self.file_error(FileError::Failed),
            // "‘0’ The pattern was not found. ‘1,address’ The pattern was found at address."
            (Pending::Search, TargetReply::Found(None)) => self.text("0"),
            (Pending::Search, TargetReply::Found(Some(address))) => {
                self.text(&format!("1,{address:x}"));
            }
            (Pending::Checksum, TargetReply::Checksum(checksum)) => {
                self.text(&format!("C{checksum:x}"));
            }
            (Pending::MemoryRegion, TargetReply::MemoryRegion(region)) => {
                self.send_region(&region);
            }
            (Pending::Insert(breakpoint), TargetReply::Done) => {
                self.refusals.withdraw(Refused::Breakpoint(breakpoint));
                self.ok();
            }
            (Pending::Insert(breakpoint), TargetReply::Error(error)) => {
                self.error(&error);
                self.refusals.add(Refused::Breakpoint(breakpoint), error.text);
            }
            (Pending::RegistersWritten, TargetReply::Done) => {
                self.refusals.withdraw(Refused::Registers);
                self.ok();
            }
            (Pending::RegistersWritten, TargetReply::Error(error)) => {
                self.error(&error);
                if !self.client.error_message {
                    self.refusals.add(Refused::Registers, error.text);
                }
            }
            (Pending::Resume, TargetReply::Done) => {
                self.guest = Guest::Running(None);
                self.tell_waiting();
                if self.interrupt_wanted {
                    self.ask(TargetOp::Interrupt, Pending::Interrupt);
                }
            }
            (Pending::NonStop(on), TargetReply::Done) => self.non_stop_is(on),
            (
                Pending::Schedule {
                    run,
                    stop,
                    reason,
                    reply,
                },
                TargetReply::Done,
            ) => {
                if reply == Reply::Ok {
                    self.ok();
                }
                self.scheduled(&run, &stop, reason);
            }
            (Pending::Interrupt, TargetReply::Done) => {}
            // Ctrl-C has no reply, but the user waits for the guest to stop.
            (Pending::Interrupt, TargetReply::Error(error)) => {
                self.console(&format!("The guest could not be stopped: {}\n", error.text));
            }
            (Pending::ExtraInfo, TargetReply::Text(text)) => {
                let mut packet = PacketWriter::with_capacity(2 * text.len());
                packet.hex(text.as_bytes());
                self.outbox.packet(packet.finish());
            }
            (
                Pending::Threads {
                    thread,
                    list,
                    offset,
                    len,
                },
                reply,
            ) => self.add_thread(thread, list, offset, len, reply),
            (Pending::Table(table, len), TargetReply::Rows(rows)) => {
                self.add_table(table, &rows, len);
            }
            (Pending::StopInfo(thread), TargetReply::StopReason(reason)) => {
                let packet = stop_reply::of_thread(reason, thread, self.client);
                self.outbox.packet(packet);
            }
            (Pending::ThreadsInfo { thread, list }, TargetReply::StopReason(reason)) => {
                let pending = Pending::ThreadRegisters {
                    thread,
                    list,
                    reason,
                };
                self.ask(TargetOp::ReadRegisters { thread }, pending);
            }
            (
                Pending::ThreadRegisters {
                    thread,
                    list,
                    reason,
                },
                reply,
            ) => {
                let registers = match reply {
                    TargetReply::Registers(block) => expedited::json(&block),
                    _ => "{}".to_owned(),
                };
                let pending = Pending::ThreadName {
                    thread,
                    list,
                    reason,
                    registers,
                };
                self.ask(TargetOp::ThreadExtraInfo { thread }, pending);
            }
            (
                Pending::ThreadName {
                    thread,
                    list,
                    reason,
                    registers,
                },
                reply,
            ) => self.add_thread_info(thread, list, reason, &registers, &reply),
            (Pending::Stop(expedited), reply) => self.add_registers(expedited, reply),
            (Pending::Ranges(ranges), reply) => self.add_range(ranges, reply),
            (Pending::Breakpoints(breakpoints), reply) => self.add_result(breakpoints, reply),
            // The text is sent as console output and not as the final reply, because LLDB shows only console output.
            (Pending::Monitor, TargetReply::Text(text)) => {
                self.tell_waiting();
                self.console(&text);
                self.ok();
            }
            // Scripts parse this answer. Pending texts are for a person, who would not see them here.
            (Pending::Monitor, TargetReply::Listing(text)) => {
                self.console(&text);
                self.ok();
            }
            (Pending::Monitor, TargetReply::Error(error)) => {
                self.tell_waiting();
                self.console(&format!("{}\n", error.text));
                self.ok();
            }
            (Pending::Trace, TargetReply::Done) => self.ok(),
            (Pending::Trace, TargetReply::Trace(reply)) => self.send_trace(reply),
            (
                Pending::FrameInfo { offset, len },
                TargetReply::Trace(TraceReply::Collected(pieces)),
            ) => {
                let document = frame_info(&pieces);
                self.outbox.packet(transfer::piece(&document, offset, len));
            }
            (Pending::Run, TargetReply::Done) => {
                let stop = self.was_reset();
                self.send_stop(stop);
            }
            (Pending::Restart, TargetReply::Done) => drop(self.was_reset()),
            (Pending::Restart, TargetReply::Error(error)) => {
                self.info.explanation = Some(format!("The guest was not reset: {}\n", error.text));
            }
            (Pending::Detach, TargetReply::Done) if self.extended => {
                self.detached = true;
                self.ok();
            }
            (Pending::Detach | Pending::KillWithReply, TargetReply::Done) => {
                self.ok();
                self.close();
            }
            (Pending::Kill, _) => {
                // GDB has closed the connection by then. LLDB reports an error unless it receives the end of the
                // process.
                if self.client.lldb {
                    let ended = StopReason::Terminated(EndSignal::Kill);
                    self.outbox.packet(stop_reply::ending(ended).expect("an end"));
                }
                self.close();
            }
            (_, TargetReply::Error(error)) => self.error(&error),
            (pending, _) => self.error(&TargetError {
                errno: 5,
                text: format!("the debug server got the wrong kind of answer for {pending:?}; please report this"),
            }),
        }
    }

    fn send_registers(&mut self, block: &RegisterBlock) {
        if block.layout() != self.info.layout {
            return self.wrong_layout();
        }
        let mut packet = PacketWriter::with_capacity(2 * block.bytes().len());
        packet.hex_except(
            block.bytes(),
            block
                .unavailable()
                .map(|reg| reg.offset..reg.offset + reg.bytes()),
        );
        if self.client.expands_runs {
            packet.shorten_runs();
        }
        self.outbox.packet(packet.finish());
    }

    fn send_register(&mut self, num: RegNum, block: &RegisterBlock) {
        let Some(reg) = self.info.layout.reg(num) else {
            return self.wrong_layout();
        };
        let mut packet = PacketWriter::default();
        match block.get(num) {
            Some(value) => packet.hex(value),
            None => packet.str(&"xx".repeat(reg.bytes())),
        }
        self.outbox.packet(packet.finish());
    }

    fn wrong_layout(&mut self) {
        self.error(&TargetError {
            errno: 5,
            text: "the debug server got registers in another layout than the session's; please report this".to_owned(),
        });
    }

    /// Writes the registers whose new value is known and differs from the present value. If a register has no value, a
    /// new value of 0 is ignored: clients send 0 for `xx`.
    fn write_different(&mut self, thread: Tid, hex: &[u8], block: &RegisterBlock) {
        if block.layout() != self.info.layout {
            return self.wrong_layout();
        }
        let mut values = Vec::new();
        for reg in self.info.layout.table() {
            let mut wanted = vec![0; reg.bytes()];
            let digits = &hex[2 * reg.offset..2 * (reg.offset + reg.bytes())];
            // The digits contain an `x`, so the value is unknown.
            if faster_hex::hex_decode(digits, &mut wanted).is_err() {
                continue;
            }
            let same = match block.get(reg.num) {
                Some(value) => value == wanted,
                None => wanted.iter().all(|&byte| byte == 0),
            };
            if !same {
                values.push((reg.num, wanted));
            }
        }
        if values.is_empty() {
            return self.ok();
        }
        let op = TargetOp::WriteRegisters { thread, values };
        self.ask(op, Pending::RegistersWritten);
    }

    fn send_memory(&mut self, format: MemoryFormat, data: &[u8]) {
        let packet = match format {
            MemoryFormat::Hex if data.is_empty() => {
                // An empty reply would mean that the packet is unknown.
                return self.error(&TargetError {
                    errno: 14,
                    text: "there is no memory at this address; `monitor info mem` lists the mapped ranges".to_owned(),
                });
            }
            MemoryFormat::Hex => {
                let mut packet = PacketWriter::with_capacity(2 * data.len());
                packet.hex(data);
                packet
            }
            MemoryFormat::Binary => {
                let mut packet = PacketWriter::with_capacity(1 + data.len());
                packet.str("b");
                packet.binary(data);
                packet
            }
        };
        self.outbox.packet(packet.finish());
    }

    /// The reply to LLDB's `qMemoryRegionInfo`. LLDB continues at the end of each region, which has to be a number.
    /// Therefore the last byte of the address space is left out.
    fn send_region(&mut self, region: &MemoryRegion) {
        let end = region.last.saturating_add(1);
        let mut packet = PacketWriter::default();
        packet.str("start:");
        packet.number(region.first);
        packet.str(";size:");
        packet.number(end - region.first);
        packet.str(";");
        if let Some(access) = region.access {
            packet.str("permissions:");
            for (letter, allowed) in [
                ("r", access.read),
                ("w", access.write),
                ("x", access.execute),
            ] {
                if allowed {
                    packet.str(letter);
                }
            }
            packet.str(";");
            if !access.read {
                packet.str("name:");
                packet.hex(NO_RAM);
                packet.str(";");
            }
        }
        self.outbox.packet(packet.finish());
    }

    /// Adds a thread to the list, and requests the next thread or sends the list. A thread without a text is in the
    /// list too.
    fn add_thread(
        &mut self,
        thread: Tid,
        mut list: Vec<u8>,
        offset: u64,
        len: u64,
        reply: TargetReply,
    ) {
        let info = match &reply {
            TargetReply::Text(text) => text,
            _ => "",
        };
        transfer::thread(&mut list, thread, info);
        if let Some(thread) = self.threads.after(thread) {
            let pending = Pending::Threads {
                thread,
                list,
                offset,
                len,
            };
            return self.ask(TargetOp::ThreadExtraInfo { thread }, pending);
        }
        transfer::threads_tail(&mut list);
        self.thread_list = list;
        let packet = transfer::piece(&self.thread_list, offset, len);
        self.outbox.packet(packet);
    }
}
