//! From a command to an operation or, where no guest is needed, to the reply.

use super::Connection;
use super::Core;
use super::Guest;
use super::pending::Pending;
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
use crate::command::max_read;
use crate::command::supported;
use crate::framing::PacketWriter;
use crate::regs::Reg;
use crate::regs::RegNum;
use crate::target::Resume;
use crate::target::ResumeAction;
use crate::target::TargetError;
use crate::target::TargetOp;
use crate::target::Tid;
use crate::target_xml::target_xml;

impl Core {
    pub(super) fn execute(&mut self, command: Command<'_>) {
        let thread = self.current;
        match command {
            Command::StopReason => match self.guest {
                Guest::Stopped(stop) => {
                    self.stop_is_shown();
                    self.send_stop(stop);
                }
                Guest::Running(_) => self.refuse_running(),
            },
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
            // GDB finds out whether `X` is there by writing nothing.
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
            Command::Resume { action, address } => self.resume_plainly(action, address),
            Command::VCont(vcont) => self.resume_vcont(&vcont),
            Command::VContQuery => self.text(VCONT_ACTIONS),
            Command::Interrupt => self.interrupt(Pending::Ok),
            Command::InsertBreakpoint(breakpoint) => {
                self.ask(
                    TargetOp::InsertBreakpoint(breakpoint),
                    Pending::Insert(breakpoint),
                );
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
            // "The remote server attached to an existing process": GDB offers to detach at its end, not to kill.
            Command::Attached => self.text("1"),
            Command::Supported(named) => {
                if let Some(client) = named {
                    self.client = client;
                }
                self.text(&supported(self.client));
            }
            Command::OfLldb => {
                self.client.expands_runs = true;
                self.client.lldb = true;
                self.text("");
            }
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
            Command::KillWithReply => self.ask(TargetOp::Kill, Pending::KillWithReply),
            Command::Unknown => self.text(""),
        }
    }

    /// The client asks what it asks only after a stop that the user sees. A Ctrl-C from before has crossed with that stop.
    fn stop_is_shown(&mut self) {
        if matches!(self.guest, Guest::Stopped(_)) {
            self.interrupt_wanted = false;
        }
    }

    /// Ends the session once everything has been sent.
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

    /// The register of this number, which may be any that a client can write.
    fn register(&self, num: u64) -> Option<&'static Reg> {
        let num = RegNum(u16::try_from(num).ok()?);
        self.info.layout.reg(num)
    }

    fn no_such_register(&mut self, num: u64) {
        let last = self.info.layout.table().len() - 1;
        self.bad_argument(&format!(
            "there is no register {num:#x}; the last is {last:#x}"
        ));
    }

    fn refuse_running(&mut self) {
        self.error(&TargetError {
            errno: 16,
            text: "the guest is running; interrupt it first".to_owned(),
        });
    }

    /// `G`. Clients write back registers that they did not change, and many cannot be written, so the ones that differ have to be
    /// found first.
    fn write_registers(&mut self, hex: &[u8]) {
        let bytes = self.info.layout.total_bytes();
        if hex.len() != 2 * bytes || !hex.iter().all(|d| d.is_ascii_hexdigit() || *d == b'x') {
            return self.bad_argument(&format!(
                "G takes the {bytes} bytes that g gives, in hex, or xx where a byte is unknown"
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
                "{} has {} bytes, not {}",
                reg.name,
                reg.bytes(),
                value.len()
            ));
        }
        let op = TargetOp::WriteRegisters {
            thread: self.current,
            values: vec![(reg.num, value)],
        };
        self.ask(op, Pending::Ok);
    }

    /// Asks for as much as a reply holds and the address space has: replies may be shorter than what was asked for.
    fn read_memory(&mut self, address: u64, len: u64, format: MemoryFormat) {
        let room = (u64::MAX - address).saturating_add(1);
        let max = max_read(format);
        let len = usize::try_from(len.min(room)).map_or(max, |len| len.min(max));
        if len == 0 {
            // In binary that is how a client finds out whether `x` is there.
            return match format {
                MemoryFormat::Hex => self.bad_argument("nothing to read: the length is 0"),
                MemoryFormat::Binary => self.text("b"),
            };
        }
        let op = match self.physical_memory {
            true => TargetOp::ReadPhysical { address, len },
            false => TargetOp::ReadMemory {
                thread: self.current,
                address,
                len,
            },
        };
        self.ask(op, Pending::Memory(format));
    }

    /// `c` and `s`. One thread chosen by `Hc` goes alone; without a choice all go, and `s` steps the current one.
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

    /// The leftmost action that matches a thread is its own; threads that nothing matches stay.
    fn resume_vcont(&mut self, vcont: &VCont) {
        let mut resume = Resume {
            others: ResumeAction::Stay,
            actions: Vec::new(),
            jump: None,
        };
        for &(action, selector) in &vcont.actions {
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

    /// The selector, if it names no thread that does not exist; else an error reply has been sent.
    fn existing(&mut self, selector: ThreadSelector) -> Option<ThreadSelector> {
        match selector {
            ThreadSelector::One(tid) if tid.get() > self.info.thread_count => {
                self.bad_argument(&format!(
                    "there is no thread {}; the last is {}",
                    tid.get(),
                    self.info.thread_count
                ));
                None
            }
            selector => Some(selector),
        }
    }

    /// `m id,id...`: all that fit, which are more than there can be VPs.
    fn list_threads(&mut self) {
        let mut packet = PacketWriter::default();
        packet.str("m");
        for id in 1..=self.info.thread_count {
            if id > 1 {
                packet.str(",");
            }
            packet.number(u64::from(id));
        }
        self.outbox.packet(packet.finish());
    }

    /// The list is made when the client begins to read it, with a word on each thread from the guest.
    fn read_threads(&mut self, offset: u64, len: u64) {
        if offset > 0 {
            let packet = transfer::piece(&self.threads, offset, len);
            return self.outbox.packet(packet);
        }
        let thread = Tid::new(1).expect("1 is not 0");
        let pending = Pending::Threads {
            thread,
            list: transfer::threads_head(),
            offset,
            len,
        };
        self.ask(TargetOp::ThreadExtraInfo { thread }, pending);
    }
}
