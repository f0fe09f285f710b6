//! Executes a command: requests an operation, or replies at once if no operation is needed.

use super::Connection;
use super::Core;
use super::Guest;
use super::lldb;
use super::non_stop;
use super::pending::Pending;
use super::trace::MOST_BYTES;
use super::transfer;
use crate::command::Command;
use crate::command::MemoryFormat;
use crate::command::NO_ALLOCATION;
use crate::command::QEMU_FEATURES;
use crate::command::STEP_BITS;
use crate::command::ThreadSelector;
use crate::command::TransferObject;
use crate::command::VCONT_ACTIONS;
use crate::command::VCont;
use crate::command::VContAction;
use crate::command::max_read;
use crate::framing::PacketWriter;
use crate::packets::supported;
use crate::regs::Reg;
use crate::regs::RegNum;
use crate::target::AddressSpace;
use crate::target::MemoryRange;
use crate::target::Resume;
use crate::target::ResumeAction;
use crate::target::TargetError;
use crate::target::TargetOp;
use crate::target::Tid;
use crate::target::TraceOp;
use crate::target_xml::target_xml;

impl Core {
    /// Executes a packet that names a thread, without selecting the thread for later packets.
    pub(super) fn execute_for(&mut self, thread: Tid, command: Command<'_>) {
        if self.existing(ThreadSelector::One(thread)).is_some() {
            let selected = std::mem::replace(&mut self.current, thread);
            self.execute(command);
            self.current = selected;
        }
    }

    pub(super) fn execute(&mut self, command: Command<'_>) {
        // A client with the list of threads in the stop reply does not ask for the list.
        if self.client.threads_in_stop
            && !matches!(command, Command::Resume { .. } | Command::VCont(_))
        {
            self.stop_is_shown();
        }
        let thread = self.current;
        match command {
            Command::File(request) => self.file(request),
            // GDB 16 waits for ever if the connection is closed before GDB has looked at the file again. The next client cannot connect before this one goes.
            _ if self.detached => self.close(),
            Command::StopReason => match self.guest {
                Guest::Stopped(stop) => {
                    self.stop_is_shown();
                    self.send_stop(stop);
                }
                Guest::Running(_) => self.refuse_running(),
                Guest::NonStop(_) => self.list_stops(),
            },
            Command::ReadRegisters
            | Command::ReadRegister(_)
            | Command::WriteRegisters { .. }
            | Command::WriteRegister { .. }
                if self.runs(thread) =>
            {
                self.refuse_running_thread(thread);
            }
            Command::ReadRegisters => {
                self.ask(TargetOp::ReadRegisters { thread }, Pending::Registers);
            }
            Command::WriteRegisters { hex } => self.write_registers(hex),
            Command::ReadRegister(num) => match self.register(num) {
                Some(reg) => {
                    self.ask(
                        TargetOp::ReadRegisters { thread },
                        Pending::Register(reg.num),
                    );
                }
                None => self.no_such_register(num),
            },
            Command::WriteRegister { num, value } => self.write_register(num, value),
            Command::ReadMemory {
                address,
                len,
                format,
            } => self.read_memory(address, len, format),
            // GDB finds out whether the server supports `X` by writing zero bytes.
            Command::WriteMemory { data, .. } if data.is_empty() => self.ok(),
            Command::WriteMemory { address, data } => {
                let data = data.into_owned();
                let op = match self.physical_memory {
                    true => TargetOp::WritePhysical { address, data },
                    false => TargetOp::WriteMemory {
                        thread,
                        address,
                        data,
                    },
                };
                self.ask(op, Pending::Ok);
            }
            Command::SearchMemory {
                address,
                len,
                pattern,
            } => {
                let op = TargetOp::SearchMemory {
                    range: self.memory_range(address, len),
                    pattern: pattern.into_owned(),
                };
                self.ask(op, Pending::Search);
            }
            Command::Checksum { address, len } => {
                let range = self.memory_range(address, len);
                self.ask(TargetOp::Checksum(range), Pending::Checksum);
            }
            Command::Resume { action, address } => self.resume_plainly(action, address),
            Command::VCont(vcont) => self.resume_vcont(&vcont),
            Command::VContQuery => self.text(VCONT_ACTIONS),
            Command::SetNonStop(on) => self.set_non_stop(on),
            Command::StopSeen => self.stop_seen(),
            Command::Interrupt => self.interrupt(Pending::Ok),
            Command::InsertBreakpoint { commands, .. }
                if !commands.is_empty() && matches!(self.guest, Guest::NonStop(_)) =>
            {
                self.bad_argument(non_stop::NO_COMMANDS);
            }
            Command::InsertBreakpoint {
                breakpoint,
                conditions,
                commands,
            } => {
                let op = TargetOp::InsertBreakpoint {
                    breakpoint,
                    conditions,
                    commands,
                };
                self.ask(op, Pending::Insert(breakpoint));
            }
            Command::RemoveBreakpoint(breakpoint) => {
                self.ask(TargetOp::RemoveBreakpoint(breakpoint), Pending::Ok);
            }
            Command::SelectThread(selector) => self.select_thread(selector),
            Command::SelectResumedThread(selector) => {
                if let Some(selector) = self.existing(selector) {
                    self.resumed = selector;
                    self.ok();
                }
            }
            Command::ThreadAlive(tid) => {
                if self.existing(ThreadSelector::One(tid)).is_some() {
                    self.ok();
                }
            }
            Command::CurrentThread => {
                let mut packet = PacketWriter::default();
                packet.str("QC");
                packet.number(u64::from(thread.get()));
                self.outbox.packet(packet.finish());
            }
            Command::FirstThreads => {
                self.stop_is_shown();
                self.list_threads();
            }
            Command::MoreThreads => self.text("l"),
            Command::ThreadExtraInfo(thread) => {
                if self.existing(ThreadSelector::One(thread)).is_some() {
                    self.ask(TargetOp::ThreadExtraInfo { thread }, Pending::ExtraInfo);
                }
            }
            Command::ThreadStopInfo(thread) => {
                if self.existing(ThreadSelector::One(thread)).is_some() {
                    self.ask_stop_reason(thread, Pending::StopInfo(thread));
                }
            }
            Command::ThreadsInfo => self.threads_info(),
            // "The remote server attached to an existing process": at its end GDB offers to detach and not to kill.
            Command::Attached => self.text("1"),
            Command::Supported(named) => {
                if let Some(client) = named {
                    self.client = client;
                }
                self.text(&supported(self.client, self.info.symbols.is_some()));
            }
            Command::ThreadSuffixSupported => {
                self.client.expands_runs = true;
                self.client.lldb = true;
                self.ok();
            }
            Command::ListThreadsInStopReply => {
                self.client.threads_in_stop = true;
                self.ok();
            }
            Command::EnableErrorStrings => {
                self.client.error_strings = true;
                self.ok();
            }
            Command::HostInfo => self.text(lldb::HOST_INFO),
            Command::ProcessInfo => self.text(lldb::PROCESS_INFO),
            Command::ServerVersion => self.text(lldb::VERSION),
            Command::WatchpointSupport => self.watchpoint_support(),
            Command::ReadRanges(ranges) => self.read_ranges(ranges),
            Command::Breakpoints(requests) => self.change_breakpoints(requests),
            Command::StartNoAckMode => self.outbox.stop_acks(),
            Command::Transfer {
                object: TransferObject::TargetDescription,
                offset,
                len,
            } => {
                let document = target_xml(self.info.layout).as_bytes();
                self.outbox.packet(transfer::piece(document, offset, len));
            }
            Command::Transfer {
                object: TransferObject::Threads,
                offset,
                len,
            } => {
                self.stop_is_shown();
                self.read_threads(offset, len);
            }
            Command::Transfer {
                object: TransferObject::FrameInfo,
                offset,
                len,
            } => {
                let op = TargetOp::Trace(TraceOp::Collected);
                self.ask(op, Pending::FrameInfo { offset, len });
            }
            Command::Trace(TraceOp::Buffer { offset, len }) => {
                let len = len.min(MOST_BYTES);
                let op = TargetOp::Trace(TraceOp::Buffer { offset, len });
                self.ask(op, Pending::Trace);
            }
            Command::Trace(op) => self.ask(TargetOp::Trace(op), Pending::Trace),
            Command::Transfer {
                object: TransferObject::SymbolFileName,
                offset,
                len,
            } => match &self.info.symbols {
                Some(symbols) => {
                    let packet = transfer::piece(&symbols.name, offset, len);
                    self.outbox.packet(packet);
                }
                None => self.text(""),
            },
            Command::Table { name, offset, len } => self.read_table(name, offset, len),
            Command::MemoryRegion(address) => {
                self.ask(
                    TargetOp::MemoryRegion { thread, address },
                    Pending::MemoryRegion,
                );
            }
            Command::HasMemoryRegions => self.ok(),
            Command::Allocation => self.error(&TargetError {
                errno: 12,
                text: NO_ALLOCATION.to_owned(),
            }),
            Command::Monitor(line) => {
                self.ask(TargetOp::Monitor { thread, line }, Pending::Monitor);
            }
            Command::StepBits => self.text(STEP_BITS),
            Command::StepInterrupts => {
                self.ask(TargetOp::StepInterrupts(None), Pending::StepFlags);
            }
            Command::SetStepInterrupts(interrupts) => {
                self.ask(TargetOp::StepInterrupts(Some(interrupts)), Pending::Ok);
            }
            Command::QemuFeatures => self.text(QEMU_FEATURES),
            Command::PhysicalMemory => self.text(match self.physical_memory {
                true => "1",
                false => "0",
            }),
            Command::SetPhysicalMemory(physical) => {
                self.physical_memory = physical;
                self.ok();
            }
            Command::Detach => self.ask(TargetOp::Detach, Pending::Detach),
            Command::Kill => self.ask(TargetOp::Kill, Pending::Kill),
            Command::Extend => self.extend(),
            Command::Run {
                file,
                has_arguments,
            } => self.run(&file, has_arguments),
            Command::Restart => self.restart(),
            Command::Attach => self.attach(),
            Command::ExecAndArgs => self.send_program(),
            Command::KillWithReply if self.extended => self.kill_extended(),
            Command::KillWithReply => self.ask(TargetOp::Kill, Pending::KillWithReply),
            Command::Unknown => self.text(""),
        }
    }

    /// Handles a packet that the client sends only after a stop that the user sees. An earlier Ctrl-C has crossed with
    /// that stop.
    fn stop_is_shown(&mut self) {
        if matches!(self.guest, Guest::Stopped(_)) {
            self.interrupt_wanted = false;
        }
    }

    /// Ends the session after all bytes were sent.
    pub(super) fn close(&mut self) {
        self.outbox.send_all();
        self.connection = Connection::Closing;
    }

    pub(super) fn bad_argument(&mut self, text: &str) {
        self.error(&TargetError {
            errno: 22,
            text: text.to_owned(),
        });
    }

    /// The register with this number, which a client may choose freely.
    fn register(&self, num: u64) -> Option<&'static Reg> {
        let num = RegNum(u16::try_from(num).ok()?);
        self.info.layout.reg(num)
    }

    fn no_such_register(&mut self, num: u64) {
        let last = self.info.layout.table().len() - 1;
        self.bad_argument(&format!(
            "there is no register {num:#x}; the last register is {last:#x}"
        ));
    }

    pub(super) fn refuse_running(&mut self) {
        self.error(&TargetError {
            errno: 16,
            text: "the guest is running; interrupt it first".to_owned(),
        });
    }

    /// `G`. Clients also write back registers that they did not change, and many registers cannot be written. So the
    /// session first reads the registers and then writes those that differ.
    fn write_registers(&mut self, hex: &[u8]) {
        let bytes = self.info.layout.total_bytes();
        if hex.len() != 2 * bytes || !hex.iter().all(|d| d.is_ascii_hexdigit() || *d == b'x') {
            return self.bad_argument(&format!(
                "G needs {bytes} bytes in hex, as g returns them, with xx for an unknown byte"
            ));
        }
        let thread = self.current;
        let pending = Pending::WriteDifferent {
            thread,
            hex: hex.to_vec(),
        };
        self.ask(TargetOp::ReadRegisters { thread }, pending);
    }

    fn write_register(&mut self, num: u64, value: Vec<u8>) {
        let Some(reg) = self.register(num) else {
            return self.no_such_register(num);
        };
        if value.len() != reg.bytes() {
            return self.bad_argument(&format!(
                "{} has {} bytes, and the value has {}",
                reg.name,
                reg.bytes(),
                value.len()
            ));
        }
        let op = TargetOp::WriteRegisters {
            thread: self.current,
            values: vec![(reg.num, value)],
        };
        self.ask(op, Pending::RegistersWritten);
    }

    /// Reads as many bytes as fit in a reply and in the address space. A reply may be shorter than requested.
    fn read_memory(&mut self, address: u64, len: u64, format: MemoryFormat) {
        let room = (u64::MAX - address).saturating_add(1);
        let max = max_read(format);
        let len = usize::try_from(len.min(room)).map_or(max, |len| len.min(max));
        if len == 0 {
            // A client sends `x` with length 0 to find out whether the server supports `x`.
            return match format {
                MemoryFormat::Hex => {
                    self.bad_argument("the length is 0; ask for at least one byte");
                }
                MemoryFormat::Binary => self.text("b"),
            };
        }
        self.ask(self.read_op(address, len), Pending::Memory(format));
    }

    pub(super) fn read_op(&self, address: u64, len: usize) -> TargetOp {
        match self.physical_memory {
            true => TargetOp::ReadPhysical { address, len },
            false => TargetOp::ReadMemory {
                thread: self.current,
                address,
                len,
            },
        }
    }

    /// The range of a packet that has checked that the range does not pass the end of the address space. `len` is at least 1.
    fn memory_range(&self, address: u64, len: u64) -> MemoryRange {
        MemoryRange {
            space: match self.physical_memory {
                true => AddressSpace::Physical,
                false => AddressSpace::Virtual(self.current),
            },
            first: address,
            last: address.saturating_add(len - 1),
        }
    }

    /// `c` and `s`. A thread that `Hc` selected runs alone. Otherwise all threads run, and `s` steps the current
    /// thread.
    fn resume_plainly(&mut self, action: ResumeAction, address: Option<u64>) {
        let (thread, others) = match self.resumed {
            ThreadSelector::One(tid) => (tid, ResumeAction::Stay),
            ThreadSelector::Any | ThreadSelector::All => (self.current, ResumeAction::Continue),
        };
        self.resume(Resume {
            others,
            actions: if action == others {
                vec![]
            } else {
                vec![(thread, action)]
            },
            jump: address.map(|address| (thread, address)),
        });
    }

    /// The leftmost action that matches a thread applies to it. A thread without a matching action stays stopped.
    fn resume_vcont(&mut self, vcont: &VCont) {
        let mut resume = Resume {
            others: ResumeAction::Stay,
            actions: Vec::new(),
            jump: None,
        };
        if let Guest::NonStop(_) = self.guest {
            return self.schedule_vcont(vcont);
        }
        for &(action, selector) in &vcont.actions {
            let VContAction::Resume(action) = action else {
                return self.bad_argument(non_stop::NEEDS_NON_STOP);
            };
            let tid = match self.existing(selector) {
                None => return,
                Some(ThreadSelector::All) => {
                    resume.others = action;
                    break;
                }
                Some(ThreadSelector::One(tid)) => tid,
                Some(ThreadSelector::Any) => match self.resumed {
                    ThreadSelector::One(tid) => tid,
                    ThreadSelector::Any | ThreadSelector::All => self.current,
                },
            };
            if resume.actions.iter().all(|(named, _)| *named != tid) {
                resume.actions.push((tid, action));
            }
        }
        self.resume(resume);
    }

    fn resume(&mut self, resume: Resume) {
        match self.guest {
            Guest::Stopped(_) => {
                self.interrupt_thread = self.interrupt_thread_after(&resume);
                self.ask(TargetOp::Resume(resume), Pending::Resume);
            }
            Guest::Running(_) => self.refuse_running(),
            Guest::NonStop(_) => self.schedule_resume(&resume),
        }
    }

    fn select_thread(&mut self, selector: ThreadSelector) {
        match self.existing(selector) {
            Some(ThreadSelector::One(tid)) => self.current = tid,
            Some(ThreadSelector::Any | ThreadSelector::All) => {}
            None => return,
        }
        self.ok();
    }

    /// Returns the selector, unless it names a thread that does not exist. In that case an error reply has been sent.
    pub(super) fn existing(&mut self, selector: ThreadSelector) -> Option<ThreadSelector> {
        match selector {
            ThreadSelector::One(tid) if !self.threads.contains(tid) => {
                let ids: Vec<_> = self
                    .threads
                    .iter()
                    .map(|tid| tid.get().to_string())
                    .collect();
                let (missing, ids) = (tid.get(), ids.join(", "));
                self.bad_argument(&format!(
                    "there is no thread {missing}; the threads are {ids}"
                ));
                None
            }
            selector => Some(selector),
        }
    }

    /// `m id,id...`. All threads fit in one packet, because the number of VPs is limited.
    fn list_threads(&mut self) {
        if self.killed {
            return self.text("l");
        }
        let mut packet = PacketWriter::default();
        packet.str("m");
        for (position, thread) in self.threads.iter().enumerate() {
            if position > 0 {
                packet.str(",");
            }
            packet.number(u64::from(thread.get()));
        }
        self.outbox.packet(packet.finish());
    }

    /// The list is created when the client begins to read it, with a text about each thread from the guest.
    fn read_threads(&mut self, offset: u64, len: u64) {
        if offset > 0 {
            let packet = transfer::piece(&self.thread_list, offset, len);
            return self.outbox.packet(packet);
        }
        if self.killed {
            self.thread_list = transfer::threads_head();
            transfer::threads_tail(&mut self.thread_list);
            let packet = transfer::piece(&self.thread_list, offset, len);
            return self.outbox.packet(packet);
        }
        let thread = self.threads.first();
        let pending = Pending::Threads {
            thread,
            list: transfer::threads_head(),
            offset,
            len,
        };
        self.ask(TargetOp::ThreadExtraInfo { thread }, pending);
    }
}
