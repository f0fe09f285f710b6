//! Tracepoints: what a VP records at a hit, and the buffer with the frames of all VPs.
//!
//! A VP collects a frame on its own thread without a lock, and takes the lock of the buffer to append the frame. So the order of the frames is the same for every client, and the
//! frames of one VP are in the order of its hits.

use agent_expr::Context;
use agent_expr::Expression;
use agent_expr::Refused;
use agent_expr::Steps;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::condition::Condition;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::trace::FoundFrame;
use vmm_core_defs::trace::FrameSearch;
use vmm_core_defs::trace::MOST_TRACE_BUFFER;
use vmm_core_defs::trace::MOST_TRACE_CLIENT;
use vmm_core_defs::trace::MOST_TRACE_MEMORY;
use vmm_core_defs::trace::MOST_TRACEPOINTS;
use vmm_core_defs::trace::TraceFrame;
use vmm_core_defs::trace::TraceStart;
use vmm_core_defs::trace::TraceState;
use vmm_core_defs::trace::TraceStatus;
use vmm_core_defs::trace::TracedMemory;
use vmm_core_defs::trace::TracedRegister;
use vmm_core_defs::trace::Tracepoint;
use vmm_core_defs::trace::TracepointStatus;
use vmm_core_defs::trace::TracepointSwitch;
use vmm_core_defs::trace::WhichFrame;

/// The most bytes of code of all tracepoints together.
const MOST_CODE: usize = 1 << 20;

/// What a piece of memory takes in the buffer beside its bytes.
const PIECE: usize = 32;

/// The trace of a VM. It outlives the debugger's session.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// A hint for VPs: [`Buffer::state`] decides.
    runs: AtomicBool,
    buffer: Mutex<Buffer>,
}

#[derive(Debug)]
struct Buffer {
    state: TraceState,
    points: Vec<Arc<Point>>,
    /// In the order of `points`.
    counts: Vec<Count>,
    frames: VecDeque<Frame>,
    created: u64,
    used: usize,
    size: usize,
    circular: bool,
    client: String,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            state: TraceState::NotStarted,
            points: Vec::new(),
            counts: Vec::new(),
            frames: VecDeque::new(),
            created: 0,
            used: 0,
            size: 0,
            circular: false,
            client: String::new(),
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    hits: u64,
    bytes: u64,
}

/// A tracepoint whose code has been checked.
#[derive(Debug)]
pub(crate) struct Point {
    trace: Arc<Trace>,
    /// The place in the list of tracepoints.
    index: usize,
    number: u32,
    address: Gva,
    enabled: AtomicBool,
    pass_count: u64,
    condition: Option<Expression>,
    registers: Vec<u16>,
    expressions: Vec<Expression>,
}

/// What one hit has recorded.
#[derive(Debug)]
struct Frame {
    point: usize,
    vp: VpIndex,
    recorded: Recorded,
}

#[derive(Debug, Default)]
struct Recorded {
    registers: Vec<TracedRegister>,
    memory: Vec<TracedMemory>,
    /// The bytes of `memory`, and the pieces.
    bytes: usize,
}

impl Frame {
    fn bytes(&self) -> usize {
        let registers = self.recorded.registers.len() * size_of::<TracedRegister>();
        size_of::<Self>() + registers + self.recorded.bytes
    }
}

impl Trace {
    /// Forgets the last trace, and checks the tracepoints of the next one. Returns them by address.
    ///
    /// # Errors
    /// [`DebugError::BadCondition`].
    pub(crate) fn prepare(
        self: &Arc<Self>,
        start: TraceStart,
    ) -> Result<BTreeMap<Gva, Vec<Arc<Point>>>, DebugError> {
        self.forget();
        let address = start
            .tracepoints
            .first()
            .map_or(Gva::new(0), |first| first.address);
        let refused = |problem| DebugError::BadCondition { address, problem };
        if start.tracepoints.len() > MOST_TRACEPOINTS {
            let problem = format!("a trace has at most {MOST_TRACEPOINTS} tracepoints");
            return Err(refused(problem));
        }
        if start.client.len() > MOST_TRACE_CLIENT {
            let problem = format!("a client keeps at most {MOST_TRACE_CLIENT} bytes with a trace");
            return Err(refused(problem));
        }
        let code = |point: &Tracepoint| -> usize {
            let all = point.condition.iter().chain(&point.expressions);
            all.map(|one| one.code.len()).sum()
        };
        if start.tracepoints.iter().map(code).sum::<usize>() > MOST_CODE {
            let problem = format!("all tracepoints have more than {MOST_CODE} bytes of code");
            return Err(refused(problem));
        }
        let mut by_address = BTreeMap::<_, Vec<_>>::new();
        let mut points = Vec::with_capacity(start.tracepoints.len());
        for (index, wanted) in start.tracepoints.into_iter().enumerate() {
            let address = wanted.address;
            let point = Arc::new(self.point(index, wanted)?);
            by_address.entry(address).or_default().push(point.clone());
            points.push(point);
        }
        let size = start.buffer.min(MOST_TRACE_BUFFER);
        *self.buffer() = Buffer {
            state: TraceState::Stopped,
            counts: vec![Count::default(); points.len()],
            points,
            size: usize::try_from(size).unwrap_or(usize::MAX),
            circular: start.circular,
            client: start.client,
            ..Buffer::default()
        };
        Ok(by_address)
    }

    fn point(self: &Arc<Self>, index: usize, wanted: Tracepoint) -> Result<Point, DebugError> {
        let Tracepoint {
            number,
            address,
            enabled,
            pass_count,
            condition,
            registers,
            expressions,
        } = wanted;
        let refused = |problem| DebugError::BadCondition {
            address,
            problem: format!("tracepoint {number}: {problem}"),
        };
        let unknown = |register: &&u16| ConditionRegister::with_number(**register).is_none();
        if let Some(register) = registers.iter().find(unknown) {
            return Err(refused(format!("there is no register {register}")));
        }
        if registers.len() > ConditionRegister::ALL.len() {
            return Err(refused("it has a register twice".to_owned()));
        }
        let condition = condition.as_ref().map(super::conditions::condition);
        let expressions: Result<_, _> = expressions.iter().map(check).collect();
        Ok(Point {
            trace: self.clone(),
            index,
            number,
            address,
            enabled: AtomicBool::new(enabled),
            pass_count,
            condition: condition.transpose().map_err(refused)?,
            registers,
            expressions: expressions.map_err(refused)?,
        })
    }

    /// VPs record from now on. The tracepoints are armed.
    pub(crate) fn run(&self) {
        self.buffer().state = TraceState::Running;
        self.runs.store(true, Ordering::Relaxed);
    }

    /// There is no trace and no frame any more.
    pub(crate) fn forget(&self) {
        self.runs.store(false, Ordering::Relaxed);
        *self.buffer() = Buffer::default();
    }

    /// Stops the trace for this reason, if it runs.
    pub(crate) fn stop(&self, why: TraceState) {
        let mut buffer = self.buffer();
        if buffer.state == TraceState::Running {
            self.end(&mut buffer, why);
        }
    }

    /// A client stops the trace.
    pub(crate) fn stopped(&self) {
        self.stop(TraceState::Stopped);
    }

    /// Whether VPs record.
    pub(crate) fn is_running(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    pub(crate) fn status(&self) -> TraceStatus {
        let buffer = self.buffer();
        let points = buffer.points.iter().zip(&buffer.counts);
        let points = points.map(|(point, count)| TracepointStatus {
            number: point.number,
            address: point.address,
            enabled: point.enabled.load(Ordering::Relaxed),
            hits: count.hits,
            bytes: count.bytes,
        });
        TraceStatus {
            state: buffer.state.clone(),
            frames: buffer.frames.len() as u64,
            created: buffer.created,
            used: buffer.used as u64,
            size: buffer.size as u64,
            circular: buffer.circular,
            tracepoints: points.collect(),
            client: buffer.client.clone(),
        }
    }

    /// # Errors
    /// [`DebugError::NoSuchBreakpoint`].
    pub(crate) fn switch(&self, switch: TracepointSwitch) -> Result<(), DebugError> {
        let TracepointSwitch {
            number,
            address,
            enabled,
        } = switch;
        let buffer = self.buffer();
        let mut found = false;
        for point in &buffer.points {
            if (point.number, point.address) == (number, address) {
                point.enabled.store(enabled, Ordering::Relaxed);
                found = true;
            }
        }
        match found {
            true => Ok(()),
            false => Err(DebugError::NoSuchBreakpoint { address }),
        }
    }

    pub(crate) fn find(&self, search: FrameSearch) -> FoundFrame {
        let buffer = self.buffer();
        let from = usize::try_from(search.from).unwrap_or(usize::MAX);
        let matches = |frame: &Frame| {
            let point = &buffer.points[frame.point];
            match search.which {
                WhichFrame::Tracepoint { number } => point.number == number,
                WhichFrame::Inside { first, last } => (first..=last).contains(&point.address),
                WhichFrame::Outside { first, last } => !(first..=last).contains(&point.address),
                // A property of a newer vmm_core_defs is no property.
                _ => true,
            }
        };
        let mut indexed = buffer.frames.iter().enumerate().skip(from);
        let found = indexed.find(|(_, frame)| matches(frame));
        let frame = found.map(|(index, frame)| {
            let point = &buffer.points[frame.point];
            TraceFrame {
                index: index as u64,
                number: point.number,
                address: point.address,
                vp: frame.vp,
                registers: frame.recorded.registers.clone(),
                memory: frame.recorded.memory.clone(),
            }
        });
        FoundFrame { frame }
    }

    fn end(&self, buffer: &mut Buffer, why: TraceState) {
        buffer.state = why;
        self.runs.store(false, Ordering::Relaxed);
    }

    fn append(&self, point: &Point, frame: Frame) {
        let mut buffer = self.buffer();
        if buffer.state != TraceState::Running {
            return;
        }
        let bytes = frame.bytes();
        while buffer.circular && buffer.used + bytes > buffer.size {
            let Some(oldest) = buffer.frames.pop_front() else {
                break;
            };
            buffer.used -= oldest.bytes();
        }
        if buffer.used + bytes > buffer.size {
            return self.end(&mut buffer, TraceState::Full);
        }
        buffer.used += bytes;
        buffer.created += 1;
        buffer.frames.push_back(frame);
        let count = &mut buffer.counts[point.index];
        count.hits += 1;
        count.bytes += bytes as u64;
        if count.hits == point.pass_count {
            let number = point.number;
            self.end(&mut buffer, TraceState::PassCount { number });
        }
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Point {
    /// The number of expressions.
    pub(crate) fn expressions(&self) -> usize {
        self.expressions.len() + usize::from(self.condition.is_some())
    }

    /// A VP has reached the tracepoint. `budget` is for each expression.
    pub(crate) fn hit(&self, vp: VpIndex, context: &mut impl Context, budget: Steps) {
        if !self.trace.is_running() || !self.enabled.load(Ordering::Relaxed) {
            return;
        }
        let holds = (self.condition.as_ref()).map(|it| it.evaluate(context, budget));
        match holds {
            None | Some(Ok(None | Some(1..))) => {}
            Some(Ok(Some(0))) => return,
            Some(Err(error)) => {
                return self.trace.stop(TraceState::Failed {
                    number: self.number,
                    problem: format!("its condition cannot be evaluated: {error}"),
                });
            }
        }
        let mut recording = Recording {
            context,
            recorded: Recorded::default(),
        };
        for &register in &self.registers {
            if let Ok(value) = recording.context.register(register) {
                let traced = TracedRegister { register, value };
                recording.recorded.registers.push(traced);
            }
        }
        for expression in &self.expressions {
            // The memory that an expression does not reach is not recorded, and a client shows that.
            let _ = expression.evaluate(&mut recording, budget);
        }
        let frame = Frame {
            point: self.index,
            vp,
            recorded: recording.recorded,
        };
        self.trace.append(self, frame);
    }
}

/// The context of an expression that records.
struct Recording<'a, C> {
    context: &'a mut C,
    recorded: Recorded,
}

impl<C: Context> Recording<'_, C> {
    fn keep(&mut self, address: u64, data: Vec<u8>) {
        self.recorded.bytes += PIECE + data.len();
        let address = Gva::new(address);
        self.recorded.memory.push(TracedMemory { address, data });
    }

    /// The most bytes of the next piece.
    fn room(&self) -> usize {
        MOST_TRACE_MEMORY.saturating_sub(self.recorded.bytes + PIECE)
    }
}

impl<C: Context> Context for Recording<'_, C> {
    fn register(&mut self, number: u16) -> Result<u64, Refused> {
        self.context.register(number)
    }

    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Refused> {
        self.context.read(address, into)
    }

    fn trace_memory(&mut self, address: u64, length: u64) -> Result<(), Refused> {
        let length = usize::try_from(length).map_err(|_| Refused)?;
        if length == 0 {
            return Ok(());
        }
        let ends = address.checked_add(length as u64 - 1).is_some();
        if length > self.room() || !ends {
            return Err(Refused);
        }
        let mut data = vec![0; length];
        self.context.read(address, &mut data)?;
        self.keep(address, data);
        Ok(())
    }

    fn trace_string(&mut self, address: u64, limit: u64) -> Result<(), Refused> {
        let limit = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .min(self.room());
        let mut data = Vec::new();
        while data.len() < limit {
            let mut byte = [0];
            let at = address.checked_add(data.len() as u64).ok_or(Refused)?;
            if self.context.read(at, &mut byte).is_err() {
                break;
            }
            data.push(byte[0]);
            if byte == [0] {
                break;
            }
        }
        if !data.is_empty() {
            self.keep(address, data);
        }
        Ok(())
    }
}

/// # Errors
/// The problem in words.
fn check(code: &Condition) -> Result<Expression, String> {
    let expression = super::conditions::check(code)?;
    match expression.has_variables() {
        true => Err("there are no trace state variables".to_owned()),
        false => Ok(expression),
    }
}

#[cfg(test)]
mod tests;
