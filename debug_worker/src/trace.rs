//! Tracepoints: the definitions of a client become one request to the VM, and a selected frame answers reads in place of the guest.

use crate::conditions;
use crate::error_table::bad_argument;
use crate::error_table::target_error;
use crate::registers::condition_register;
use crate::registers::is_pc;
use crate::vm::AttachedVm;
use gdb_frontend::regs::Layout;
use gdb_frontend::regs::RegNum;
use gdb_frontend::regs::RegisterBlock;
use gdb_frontend::target;
use gdb_frontend::target::FrameSelection;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetReply;
use gdb_frontend::target::TraceAction;
use gdb_frontend::target::TraceOp;
use gdb_frontend::target::TraceReply;
use gdb_frontend::target::TracepointId;
use std::collections::HashMap;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::condition::Condition;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::trace::FrameSearch;
use vmm_core_defs::trace::MOST_TRACE_CLIENT;
use vmm_core_defs::trace::MOST_TRACEPOINTS;
use vmm_core_defs::trace::TraceFrame;
use vmm_core_defs::trace::TraceStart;
use vmm_core_defs::trace::TraceState;
use vmm_core_defs::trace::TraceStatus;
use vmm_core_defs::trace::Tracepoint;
use vmm_core_defs::trace::TracepointSwitch;
use vmm_core_defs::trace::WhichFrame;

/// The size of the buffer if the client names none: that of gdbserver.
const BUFFER: u64 = 5 << 20;

/// The largest `len` of a piece in a trace file has 16 bits.
const MOST_PIECE: usize = u16::MAX as usize;

/// The tracepoints of one client.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    defined: Defined,
    /// What [`TraceOp::FirstDefinition`] has listed, from the next line on.
    listed: std::vec::IntoIter<String>,
    frame: Option<TraceFrame>,
    saved: Saved,
    buffer: Option<u64>,
    circular: bool,
}

/// The definitions for the next trace.
#[derive(Debug, Default)]
struct Defined {
    tracepoints: Vec<Tracepoint>,
    /// In the client's form, for a client that comes later.
    lines: Vec<String>,
    read_only: Vec<(u64, u64)>,
}

/// How much of the buffer was read for a trace file.
#[derive(Debug, Default)]
struct Saved {
    /// The offset of the first byte in `bytes`.
    offset: u64,
    bytes: Vec<u8>,
    /// The next frame.
    next: u64,
}

impl Trace {
    pub(crate) fn frame(&self) -> Option<&TraceFrame> {
        self.frame.as_ref()
    }

    /// The guest runs: the client sees it live again.
    pub(crate) fn leave_frame(&mut self) {
        self.frame = None;
    }

    /// Whether the range is read from the guest while a frame is selected.
    pub(crate) fn is_read_only(&self, address: u64, len: usize) -> bool {
        let last = address.saturating_add(len as u64 - 1);
        let mut ranges = self.defined.read_only.iter();
        ranges.any(|(first, end)| *first <= address && last < *end)
    }

    /// Carries out one operation.
    pub(crate) async fn carry_out(
        &mut self,
        op: TraceOp,
        vm: &AttachedVm,
        layout: Layout,
    ) -> Result<TargetReply, TargetError> {
        let done = Ok(TargetReply::Done);
        match op {
            TraceOp::Init => {
                let buffer = self.buffer;
                let circular = self.circular;
                *self = Self {
                    buffer,
                    circular,
                    ..Self::default()
                };
            }
            TraceOp::Define {
                id,
                enabled,
                pass_count,
                condition,
                text,
            } => {
                let condition = condition.map(|code| trace_condition(layout, code));
                self.defined.define(
                    Tracepoint {
                        number: id.number,
                        address: Gva::new(id.address),
                        enabled,
                        pass_count,
                        condition: condition.transpose()?,
                        registers: Vec::new(),
                        expressions: Vec::new(),
                    },
                    text,
                )?;
            }
            TraceOp::Actions { id, actions, text } => {
                self.defined.add(layout, id, actions, text)?;
            }
            TraceOp::Source { id, text } => {
                self.defined.find(id)?;
                self.defined.keep(text)?;
            }
            TraceOp::Variable => {
                return Err(TargetError {
                    errno: 95,
                    text: "there are no trace state variables; use convenience variables and conditions instead".to_owned(),
                });
            }
            TraceOp::ReadOnly(ranges) => self.defined.read_only = ranges,
            TraceOp::Disconnected(false) | TraceOp::Notes => {}
            TraceOp::Disconnected(true) => {
                return Err(TargetError {
                    errno: 95,
                    text: "a trace stops when its client disconnects, and its frames stay; use `set disconnected-tracing off`".to_owned(),
                });
            }
            TraceOp::Circular(circular) => self.circular = circular,
            TraceOp::BufferSize(size) => self.buffer = size,
            TraceOp::Start => {
                let start = TraceStart {
                    tracepoints: self.defined.tracepoints.clone(),
                    buffer: self.buffer.unwrap_or(BUFFER),
                    circular: self.circular,
                    client: self.defined.lines.join("\n"),
                };
                self.frame = None;
                self.saved = Saved::default();
                let started = vm.call(DebugRequest::StartTrace, start).await;
                started.map_err(|error| target_error(&error))?;
            }
            TraceOp::Stop => {
                let stopped = vm.call(DebugRequest::StopTrace, ()).await;
                stopped.map_err(|error| target_error(&error))?;
            }
            TraceOp::Status => {
                let status = status(vm).await?;
                return Ok(TargetReply::Trace(TraceReply::Status(to_client(status))));
            }
            TraceOp::Hits(id) => {
                let status = status(vm).await?;
                let this = |point: &&vmm_core_defs::trace::TracepointStatus| {
                    (point.number, point.address.value()) == (id.number, id.address)
                };
                let point = status.tracepoints.iter().find(this);
                let (hits, bytes) = point.map_or((0, 0), |point| (point.hits, point.bytes));
                return Ok(TargetReply::Trace(TraceReply::Hits { hits, bytes }));
            }
            TraceOp::Switch(id, enabled) => {
                let switch = TracepointSwitch {
                    number: id.number,
                    address: Gva::new(id.address),
                    enabled,
                };
                let switched = vm.call(DebugRequest::SwitchTracepoint, switch).await;
                switched.map_err(|error| target_error(&error))?;
            }
            TraceOp::Select(selection) => {
                let frame = self.select(selection, vm).await?;
                return Ok(TargetReply::Trace(TraceReply::Frame(frame)));
            }
            TraceOp::FirstDefinition => {
                let client = status(vm).await?.client;
                let lines: Vec<_> = client.lines().map(str::to_owned).collect();
                self.listed = lines.into_iter();
                return Ok(self.next_definition());
            }
            TraceOp::NextDefinition => return Ok(self.next_definition()),
            TraceOp::FirstVariable => {
                return Ok(TargetReply::Trace(TraceReply::Definition(None)));
            }
            TraceOp::Buffer { offset, len } => {
                let bytes = self.saved.read(offset, len, vm, layout).await?;
                return Ok(TargetReply::Trace(TraceReply::Bytes(bytes)));
            }
            TraceOp::Collected => {
                let frame = self.frame.as_ref().ok_or_else(|| {
                    bad_argument("no trace frame is selected; use `tfind`".to_owned())
                })?;
                return Ok(TargetReply::Trace(TraceReply::Collected(collected(frame))));
            }
        }
        done
    }

    fn next_definition(&mut self) -> TargetReply {
        TargetReply::Trace(TraceReply::Definition(self.listed.next()))
    }

    /// Selects a frame, and returns its number and that of its tracepoint. If there is none, the selected frame stays.
    async fn select(
        &mut self,
        selection: FrameSelection,
        vm: &AttachedVm,
    ) -> Result<Option<(u64, u32)>, TargetError> {
        let behind = self.frame.as_ref().map_or(0, |frame| frame.index + 1);
        let range = |first, last| (Gva::new(first), Gva::new(last));
        let (from, which) = match selection {
            FrameSelection::None => {
                self.frame = None;
                return Ok(None);
            }
            FrameSelection::Number(number) => (number, WhichFrame::Any),
            FrameSelection::Tracepoint(number) => (behind, WhichFrame::Tracepoint { number }),
            FrameSelection::Inside(first, last) => {
                let (first, last) = range(first, last);
                (behind, WhichFrame::Inside { first, last })
            }
            FrameSelection::Outside(first, last) => {
                let (first, last) = range(first, last);
                (behind, WhichFrame::Outside { first, last })
            }
        };
        let search = FrameSearch { from, which };
        let found = vm.call(DebugRequest::FindFrame, search).await;
        let found = found.map_err(|error| target_error(&error))?.frame;
        Ok(found.map(|frame| {
            let selected = (frame.index, frame.number);
            self.frame = Some(frame);
            selected
        }))
    }
}

impl Defined {
    fn find(&mut self, id: TracepointId) -> Result<&mut Tracepoint, TargetError> {
        let this = |point: &&mut Tracepoint| {
            (point.number, point.address.value()) == (id.number, id.address)
        };
        let TracepointId { number, address } = id;
        self.tracepoints.iter_mut().find(this).ok_or_else(|| {
            bad_argument(format!(
                "there is no tracepoint {number} at {address:#x}; define it first"
            ))
        })
    }

    fn define(&mut self, tracepoint: Tracepoint, text: String) -> Result<(), TargetError> {
        let id = TracepointId {
            number: tracepoint.number,
            address: tracepoint.address.value(),
        };
        if self.find(id).is_ok() {
            let TracepointId { number, address } = id;
            return Err(bad_argument(format!(
                "tracepoint {number} at {address:#x} is defined already; send QTinit first"
            )));
        }
        if self.tracepoints.len() >= MOST_TRACEPOINTS {
            return Err(bad_argument(format!(
                "there are {MOST_TRACEPOINTS} tracepoints already; delete some"
            )));
        }
        self.keep(text)?;
        self.tracepoints.push(tracepoint);
        Ok(())
    }

    fn add(
        &mut self,
        layout: Layout,
        id: TracepointId,
        actions: Vec<TraceAction>,
        text: String,
    ) -> Result<(), TargetError> {
        let mut registers = Vec::new();
        let mut expressions = Vec::new();
        for action in actions {
            match action {
                // A frame has no other registers.
                TraceAction::Registers(numbers) => registers.extend(
                    (numbers.into_iter())
                        .filter_map(|number| condition_register(layout, RegNum(number)))
                        .map(ConditionRegister::number),
                ),
                TraceAction::Memory { base, offset, len } => {
                    let code = range_code(base, offset, len);
                    expressions.push(trace_action(layout, &code)?);
                }
                TraceAction::Expression(code) => expressions.push(trace_action(layout, &code)?),
            }
        }
        self.find(id)?;
        self.keep(text)?;
        let tracepoint = self.find(id)?;
        for register in registers {
            if !tracepoint.registers.contains(&register) {
                tracepoint.registers.push(register);
            }
        }
        tracepoint.expressions.extend(expressions);
        Ok(())
    }

    fn keep(&mut self, text: String) -> Result<(), TargetError> {
        let kept: usize = self.lines.iter().map(|line| line.len() + 1).sum();
        if kept + text.len() > MOST_TRACE_CLIENT {
            return Err(bad_argument(format!(
                "the definitions of all tracepoints have more than {MOST_TRACE_CLIENT} bytes; delete some"
            )));
        }
        self.lines.push(text);
        Ok(())
    }
}

impl Saved {
    /// The buffer in GDB's format (GDB manual, node "Trace File Format"), from `offset` on. Reading in order costs one request for each frame.
    async fn read(
        &mut self,
        offset: u64,
        len: u64,
        vm: &AttachedVm,
        layout: Layout,
    ) -> Result<Vec<u8>, TargetError> {
        if offset < self.offset {
            *self = Self::default();
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        loop {
            let skipped = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
            let skipped = skipped.min(self.bytes.len());
            self.bytes.drain(..skipped);
            self.offset += skipped as u64;
            if self.offset == offset && !self.bytes.is_empty() {
                let len = len.min(self.bytes.len());
                return Ok(self.bytes[..len].to_vec());
            }
            let search = FrameSearch {
                from: self.next,
                which: WhichFrame::Any,
            };
            let found = vm.call(DebugRequest::FindFrame, search).await;
            match found.map_err(|error| target_error(&error))?.frame {
                Some(frame) => append(&mut self.bytes, layout, &frame),
                None => return Ok(Vec::new()),
            }
            self.next += 1;
        }
    }
}

/// "Each trace frame: a tracepoint number of two bytes, the size of the data of four bytes, and blocks: `R` and the registers, `M`, an address, a length of two bytes and memory."
fn append(bytes: &mut Vec<u8>, layout: Layout, frame: &TraceFrame) {
    let mut data = Vec::new();
    if !frame.registers.is_empty() {
        data.push(b'R');
        let block = registers(layout, frame);
        for reg in layout.table() {
            let zero = vec![0; reg.bytes()];
            data.extend(block.get(reg.num).unwrap_or(&zero));
        }
    }
    for piece in &frame.memory {
        let address = piece.address.value();
        for (index, chunk) in piece.data.chunks(MOST_PIECE).enumerate() {
            let at = address.wrapping_add((index * MOST_PIECE) as u64);
            data.push(b'M');
            data.extend(at.to_le_bytes());
            data.extend(u16::try_from(chunk.len()).unwrap_or(u16::MAX).to_le_bytes());
            data.extend(chunk);
        }
    }
    // A number that does not fit is none of GDB's.
    let number = u16::try_from(frame.number).unwrap_or(u16::MAX);
    bytes.extend(number.to_le_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(data);
}

/// The registers of a frame. The program counter is known without a record.
pub(crate) fn registers(layout: Layout, frame: &TraceFrame) -> RegisterBlock {
    let values = frame.registers.iter();
    let values: HashMap<_, _> = values.map(|one| (one.register, one.value)).collect();
    let mut block = RegisterBlock::new(layout);
    for reg in layout.table() {
        let register = condition_register(layout, reg.num);
        let value = register.and_then(|register| values.get(&register.number()));
        match value {
            Some(value) => block.set(reg.num, &value.to_le_bytes()[..reg.bytes().min(8)]),
            None if is_pc(layout, reg.num) => block.set_uint(reg.num, frame.address.value()),
            None => {}
        }
    }
    block
}

/// The bytes that a frame has from this address on, at most `len`.
pub(crate) fn memory(frame: &TraceFrame, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let Some(at) = address.checked_add(bytes.len() as u64) else {
            break;
        };
        let from_piece = frame.memory.iter().find_map(|piece| {
            let skip = usize::try_from(at.checked_sub(piece.address.value())?).ok()?;
            piece.data.get(skip..).filter(|rest| !rest.is_empty())
        });
        match from_piece {
            Some(rest) => bytes.extend(&rest[..rest.len().min(len - bytes.len())]),
            None => break,
        }
    }
    bytes
}

/// The pieces of memory of a frame, by address and without overlaps.
fn collected(frame: &TraceFrame) -> Vec<(u64, u64)> {
    let pieces = frame.memory.iter();
    let pieces = pieces.map(|piece| (piece.address.value(), piece.data.len() as u64));
    let mut pieces: Vec<_> = pieces.collect();
    pieces.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (address, len) in pieces {
        match merged.last_mut() {
            Some((first, all)) if address - *first <= *all => {
                *all = (*all).max(address - *first + len);
            }
            _ => merged.push((address, len)),
        }
    }
    merged
}

async fn status(vm: &AttachedVm) -> Result<TraceStatus, TargetError> {
    let status = vm.call(DebugRequest::TraceStatus, ()).await;
    status.map_err(|error| target_error(&error))
}

fn to_client(status: TraceStatus) -> target::TraceStatus {
    target::TraceStatus {
        state: match status.state {
            TraceState::NotStarted => target::TraceState::NotStarted,
            TraceState::Running => target::TraceState::Running,
            TraceState::Disconnected => target::TraceState::Disconnected,
            TraceState::Full => target::TraceState::Full,
            TraceState::PassCount { number } => target::TraceState::PassCount(number),
            TraceState::Failed { number, problem } => target::TraceState::Error(problem, number),
            // Also a state of a newer vmm_core_defs.
            _ => target::TraceState::Stopped,
        },
        frames: status.frames,
        created: status.created,
        free: status.size.saturating_sub(status.used),
        size: status.size,
        circular: status.circular,
    }
}

/// # Errors
/// The bytecode is wrong, or GDB has compiled it to something else.
fn trace_condition(layout: Layout, code: Vec<u8>) -> Result<Condition, TargetError> {
    let converted = conditions::for_vm(layout, &[code]);
    let converted = converted.map_err(|error| bad_argument(error.to_string()))?;
    converted.into_iter().next().ok_or_else(|| {
        bad_argument("the vCPU cannot compute this condition exactly as you wrote it: GDB compiles it to other code; write it without shifts, vector registers and addresses of functions".to_owned())
    })
}

fn trace_action(layout: Layout, code: &[u8]) -> Result<Condition, TargetError> {
    let action = conditions::action_for_vm(layout, code).map_err(bad_argument)?;
    Ok(action)
}

/// Bytecode that records memory: `reg; const64; add; const64; trace; end`.
fn range_code(base: Option<u16>, offset: u64, len: u64) -> Vec<u8> {
    let mut code = Vec::new();
    if let Some(base) = base {
        code.push(0x26);
        code.extend(base.to_be_bytes());
    }
    code.push(0x25);
    code.extend(offset.to_be_bytes());
    if base.is_some() {
        code.push(0x02);
    }
    code.push(0x25);
    code.extend(len.to_be_bytes());
    code.extend([0x0c, 0x27]);
    code
}

#[cfg(test)]
mod tests;
