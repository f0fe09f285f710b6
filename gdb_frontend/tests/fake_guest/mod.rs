//! A guest that consists of a few tables, and answers a session's operations at once.

use gdb_frontend::regs::Layout;
use gdb_frontend::regs::Reg;
use gdb_frontend::regs::RegisterBlock;
use gdb_frontend::target::Breakpoint;
use gdb_frontend::target::BreakpointKind;
use gdb_frontend::target::FrameSelection;
use gdb_frontend::target::MemoryRange;
use gdb_frontend::target::MemoryRegion;
use gdb_frontend::target::RegionAccess;
use gdb_frontend::target::ResumeAction;
use gdb_frontend::target::StepInterrupts;
use gdb_frontend::target::Stop;
use gdb_frontend::target::StopReason;
use gdb_frontend::target::SymbolFile;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetInfo;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::TargetReply;
use gdb_frontend::target::Tid;
use gdb_frontend::target::TraceOp;
use gdb_frontend::target::TraceReply;
use gdb_frontend::target::TraceState;
use gdb_frontend::target::TraceStatus;

/// The address of the first byte of the only memory.
pub(crate) const MEMORY_BASE: u64 = 0x1000;

/// The file with the symbols, and its bytes.
const SYMBOL_FILE: &str = "/boot/my kernel.elf";
const SYMBOLS: &[u8] = b"\x7fELF#$}*";

/// A guest with memory from 0x1000 to 0x31000 and four hardware breakpoints.
pub(crate) struct FakeGuest {
    layout: Layout,
    threads: u32,
    memory: Vec<u8>,
    /// Indexed by the thread.
    registers: Vec<RegisterBlock>,
    breakpoints: Vec<Breakpoint>,
    step_interrupts: StepInterrupts,
    traces: bool,
    /// Whether there is a file with symbols.
    pub(crate) symbols: bool,
}

impl FakeGuest {
    pub(crate) fn new(layout: Layout, threads: u32) -> Self {
        let registers = (1..=threads)
            .map(|thread| registers(layout, thread))
            .collect();
        let memory = (0..0x3_0000_u32).map(|at| at.to_le_bytes()[0]).collect();
        Self {
            layout,
            threads,
            memory,
            registers,
            breakpoints: Vec::new(),
            step_interrupts: StepInterrupts::Held,
            traces: false,
            symbols: false,
        }
    }

    /// The properties with which a session begins.
    pub(crate) fn info(&self) -> TargetInfo {
        TargetInfo {
            explanation: None,
            symbols: self.symbols.then(|| SymbolFile {
                name: SYMBOL_FILE.into(),
                len: SYMBOLS.len() as u64,
                modified: 0x6543_2100,
            }),
            threads: (1..=self.threads).filter_map(Tid::new).collect(),
            layout: self.layout,
            stop: Stop {
                thread: Tid::new(1),
                reason: StopReason::Trap,
            },
        }
    }

    #[deny(clippy::wildcard_enum_match_arm)]
    pub(crate) fn answer(&mut self, op: &TargetOp) -> TargetReply {
        match op {
            TargetOp::ReadRegisters { thread } => {
                TargetReply::Registers(self.registers[index(*thread)].clone())
            }
            TargetOp::WriteRegisters { thread, values } => {
                for (num, _) in values {
                    let reg = self.layout.reg(*num).expect("the session checks numbers");
                    if is_read_only(reg) {
                        return error(95, format!("{} cannot be written", reg.name));
                    }
                }
                for (num, value) in values {
                    self.registers[index(*thread)].set(*num, value);
                }
                TargetReply::Done
            }
            TargetOp::ReadMemory { address, len, .. } | TargetOp::ReadPhysical { address, len } => {
                match self.offset(*address) {
                    Some(start) => {
                        let end = self.memory.len().min(start + len);
                        TargetReply::Memory(self.memory[start..end].to_vec())
                    }
                    None => unmapped(*address),
                }
            }
            // As if the file were longer than the largest offset, and could not be read there.
            TargetOp::ReadSymbolFile { offset, .. } if *offset > i64::MAX as u64 => {
                error(5, "no such offset".to_owned())
            }
            TargetOp::ReadSymbolFile { offset, len } => {
                let start =
                    usize::try_from(*offset).map_or(SYMBOLS.len(), |at| at.min(SYMBOLS.len()));
                let end = SYMBOLS.len().min(start + len);
                TargetReply::FileBytes(SYMBOLS[start..end].to_vec())
            }
            TargetOp::SearchMemory { range, pattern } => {
                let found = self.part(range).and_then(|(first, memory)| {
                    let mut windows = memory.windows(pattern.len());
                    let at = windows.position(|window| window == pattern)?;
                    Some(first + at as u64)
                });
                TargetReply::Found(found)
            }
            // The sum is enough to tell ranges apart.
            TargetOp::Checksum(range) => match self.part(range) {
                Some((first, memory)) if first == range.first => {
                    TargetReply::Checksum(memory.iter().copied().map(u32::from).sum())
                }
                _ => unmapped(range.first),
            },
            TargetOp::WriteMemory { address, data, .. }
            | TargetOp::WritePhysical { address, data } => match self.offset(*address) {
                Some(start) if start + data.len() <= self.memory.len() => {
                    self.memory[start..start + data.len()].copy_from_slice(data);
                    TargetReply::Done
                }
                _ => unmapped(*address),
            },
            TargetOp::MemoryRegion { address, .. } => {
                let end = MEMORY_BASE + self.memory.len() as u64;
                let (first, last, access) = match *address {
                    below if below < MEMORY_BASE => (0, MEMORY_BASE - 1, None),
                    inside if inside < end => (MEMORY_BASE, end - 1, Some((true, true, false))),
                    device if device < 1 << 32 => {
                        (end, u64::from(u32::MAX), Some((false, true, true)))
                    }
                    _ => (1 << 32, u64::MAX, None),
                };
                TargetReply::MemoryRegion(MemoryRegion {
                    first,
                    last,
                    access: access.map(|(read, write, execute)| RegionAccess {
                        read,
                        write,
                        execute,
                    }),
                })
            }
            TargetOp::InsertBreakpoint { breakpoint, .. } => {
                let hardware = |b: &&Breakpoint| b.kind != BreakpointKind::Software;
                if breakpoint.kind != BreakpointKind::Software
                    && self.breakpoints.iter().filter(hardware).count() == 4
                {
                    return error(28, "all 4 hardware breakpoints are in use".to_owned());
                }
                self.breakpoints.push(*breakpoint);
                TargetReply::Done
            }
            TargetOp::RemoveBreakpoint(breakpoint) => {
                self.breakpoints.retain(|other| other != breakpoint);
                TargetReply::Done
            }
            TargetOp::Resume(resume) => {
                for (thread, action) in &resume.actions {
                    if *action == ResumeAction::Step {
                        self.step(*thread);
                    }
                }
                TargetReply::Done
            }
            TargetOp::StepInterrupts(wanted) => {
                self.step_interrupts = wanted.unwrap_or(self.step_interrupts);
                TargetReply::StepInterrupts(self.step_interrupts)
            }
            TargetOp::NonStop(_)
            | TargetOp::Schedule(_)
            | TargetOp::Interrupt
            | TargetOp::Detach
            | TargetOp::Kill => TargetReply::Done,
            TargetOp::Trace(TraceOp::Variable) => error(95, "no trace state variables".to_owned()),
            TargetOp::Trace(op) => {
                self.traces |= *op == TraceOp::Start;
                trace(op, self.traces)
            }
            TargetOp::Reset if self.step_interrupts == StepInterrupts::Taken => {
                error(95, "no reset".to_owned())
            }
            TargetOp::Reset => TargetReply::Done,
            TargetOp::Table(table) => {
                let row = |number: u32| {
                    table
                        .columns()
                        .iter()
                        .map(|name| format!("<{name}> {number}"))
                        .collect()
                };
                TargetReply::Rows((1..=2).map(row).collect())
            }
            TargetOp::ThreadExtraInfo { thread } if thread.get() == 2 => {
                TargetReply::Text("halted, <idle>".to_owned())
            }
            // If there is a breakpoint, thread 2 has hit it too, and its hit was not reported yet.
            TargetOp::StopReason { thread } => {
                let hit = thread.get() == 2 && !self.breakpoints.is_empty();
                TargetReply::StopReason(hit.then_some(StopReason::SoftwareBreakpoint))
            }
            TargetOp::ThreadExtraInfo { .. } => TargetReply::Text(String::new()),
            TargetOp::Monitor { line, .. } => match line.as_str() {
                "help" => TargetReply::Text("help  this list\n".to_owned()),
                "quiet" => TargetReply::Text(String::new()),
                "info mem" => TargetReply::Listing(
                    "0000000000001000-0000000000031000 0000000000030000 -rw,VP0\n".to_owned(),
                ),
                "info tlb" => TargetReply::Listing(
                    "0000000000001000: 0000000000001000 ---DA---W VP 0\n".to_owned(),
                ),
                other => error(22, format!("no command {other}; try: monitor help")),
            },
            other => panic!("this guest does not know the operation {other:?}"),
        }
    }

    /// Every instruction has one byte.
    fn step(&mut self, thread: Tid) {
        let pc = self
            .layout
            .by_name("rip")
            .or_else(|| self.layout.by_name("pc"))
            .expect("every layout has a program counter");
        let registers = &mut self.registers[index(thread)];
        let value = registers.get(pc.num).expect("the program counter is known");
        let value = u64::from_le_bytes(value.try_into().expect("64 bits"));
        registers.set_uint(pc.num, value.wrapping_add(1));
    }

    /// The part of the memory that lies in a range, with its first address.
    fn part(&self, range: &MemoryRange) -> Option<(u64, &[u8])> {
        let end = MEMORY_BASE + self.memory.len() as u64;
        let first = range.first.max(MEMORY_BASE);
        let last = range.last.min(end - 1);
        let (from, to) = (self.offset(first)?, self.offset(last)?);
        (from <= to).then(|| (first, &self.memory[from..=to]))
    }

    fn offset(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(MEMORY_BASE)?).ok()?;
        (offset < self.memory.len()).then_some(offset)
    }
}

fn index(thread: Tid) -> usize {
    assert_ne!(thread.get(), 0);
    thread.get() as usize - 1
}

/// Every register has a different value, except a few that are unavailable in this guest.
fn registers(layout: Layout, thread: u32) -> RegisterBlock {
    let mut block = RegisterBlock::new(layout);
    for reg in layout.table() {
        match reg.name.as_str() {
            "xcr0" => {}
            "rip" | "pc" => block.set_uint(reg.num, 0x1000_u64 * u64::from(thread)),
            "rsp" | "sp" | "rbp" => block.set_uint(reg.num, 0x2000_u64),
            "eflags" => block.set_uint(reg.num, 0x246_u32),
            "cr0" => block.set_uint(reg.num, 0x8005_0033_u32),
            "cr3" => block.set_uint(reg.num, 0x0123_4001_u32),
            "cr4" => block.set_uint(reg.num, 0x6f0_u32),
            "efer" => block.set_uint(reg.num, 0xd01_u32),
            "mxcsr" => block.set_uint(reg.num, 0x1f80_u32),
            "cs_attr" => block.set_uint(reg.num, 0xa09b_u32),
            _ => block.set_uint(reg.num, u32::from(reg.num.0) | thread << 12),
        }
    }
    block
}

fn is_read_only(reg: &Reg) -> bool {
    reg.name == "cs_limit"
}

fn unmapped(address: u64) -> TargetReply {
    error(14, format!("no memory at {address:#x}"))
}

fn error(errno: u8, text: String) -> TargetReply {
    TargetReply::Error(TargetError { errno, text })
}

/// A trace that has stopped, with two frames.
fn trace(op: &TraceOp, was_started: bool) -> TargetReply {
    TargetReply::Trace(match op {
        TraceOp::Status => TraceReply::Status(TraceStatus {
            state: TraceState::Stopped,
            frames: 2,
            created: 3,
            free: 0x100,
            size: 0x200,
            circular: false,
        }),
        TraceOp::Hits(_) => TraceReply::Hits { hits: 3, bytes: 99 },
        TraceOp::Select(FrameSelection::Number(1)) => TraceReply::Frame(Some((1, 7))),
        TraceOp::Select(_) => TraceReply::Frame(None),
        TraceOp::FirstDefinition if was_started => {
            TraceReply::Definition(Some("T7:1000:E:0:0".to_owned()))
        }
        TraceOp::FirstDefinition | TraceOp::NextDefinition | TraceOp::FirstVariable => {
            TraceReply::Definition(None)
        }
        TraceOp::Buffer { offset: 0, .. } => TraceReply::Bytes(vec![7, 0, 0x24]),
        TraceOp::Buffer { .. } => TraceReply::Bytes(Vec::new()),
        TraceOp::Collected => TraceReply::Collected(vec![(0x2000, 8), (0x3000, 1)]),
        _ => return TargetReply::Done,
    })
}
