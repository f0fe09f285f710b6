//! The controller's part of the breakpoints: the table, the bytes in guest memory, and the location of each parked VP.

use super::ticker;
use crate::arch::CodeLocation;
use crate::arch::can_carry_out;
use crate::breakpoints::BreakpointTable;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::Changes;
use crate::breakpoints::CommandOutput;
use crate::breakpoints::Conditions;
use crate::breakpoints::GuestCode;
use crate::breakpoints::HitCounts;
use crate::breakpoints::Int3Traps;
use crate::breakpoints::Walks;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::enter::Int3Exits;
use crate::control::enter::StopSet;
use crate::control::run_state::VpAtByte;
use crate::memory::GuestRam as _;
use crate::memory::slots::MemorySlots;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::condition::BreakpointConditions;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::trace::TraceState;

/// Up to this many breakpoints are verified before each entry. More breakpoints are verified at most once per tick, and for at most a fifth of the time: after
/// each verification there is a pause of [`PAUSE_FACTOR`] times its duration.
///
/// A breakpoint took 1.3 us to verify in a test build: 64 took 83 us, 1,024 took 1.5 ms, and 16,384 took 27 ms (medians of
/// 101, AMD EPYC).
const VERIFIED_AT_EACH_ENTRY: usize = 64;
const PAUSE_FACTOR: u32 = 4;

/// This many breakpoints are verified or changed before the other tasks of the executor run.
const SLICE: usize = 1024;

/// Yields to the other tasks of this executor after a full slice of work. Debug servers may run on the same thread as the controller.
async fn yield_after(done: usize) {
    let mut wait = done >= SLICE;
    poll_fn(|context| match std::mem::take(&mut wait) {
        true => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        false => Poll::Ready(()),
    })
    .await;
}

/// See the module. Dropping this value removes every byte from memory (I6). The value outlives the VP threads.
pub(super) struct BreakpointControl {
    breakpoints: Arc<RwLock<Breakpoints>>,
    ram: Arc<MemorySlots>,
    int3: Int3Traps,
    vps: Vec<ParkedAt>,
    /// The VP that stopped last.
    selected: VpIndex,
    /// After the first breakpoint byte, `INT3` exits stay on for the session. Clients remove and insert their breakpoints at each stop, and each change of
    /// `KVM_GUESTDBG_USE_SW_BP` costs an ioctl for each VP.
    int3_exits: Int3Exits,
    reconciled: Option<Reconciled>,
    /// Whether the table has tracepoints.
    pub(super) traces: bool,
}

/// The last verification of all breakpoints.
#[derive(Debug, Clone, Copy)]
struct Reconciled {
    at: Instant,
    took: Duration,
}

/// The state of a parked VP, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
struct ParkedAt {
    location: Option<CodeLocation>,
    /// How many debug registers the guest uses on this VP.
    guest_registers: Option<usize>,
    /// Or has not come yet.
    is_gone: bool,
}

impl ParkedAt {
    const ABSENT: Self = Self {
        location: None,
        guest_registers: None,
        is_gone: true,
    };
}

impl BreakpointControl {
    pub(super) fn new(
        ram: Arc<MemorySlots>,
        breakpoints: Arc<RwLock<Breakpoints>>,
        int3: Int3Traps,
        vps: u32,
    ) -> Self {
        Self {
            breakpoints,
            ram,
            int3,
            vps: vec![ParkedAt::default(); vps as usize],
            selected: VpIndex::BSP,
            int3_exits: Int3Exits::Off,
            reconciled: None,
            traces: false,
        }
    }

    /// Read access. Drop the guard soon, because VP threads read the breakpoints too.
    pub(super) fn breakpoints(&self) -> RwLockReadGuard<'_, Breakpoints> {
        let breakpoints = self.breakpoints.read();
        breakpoints.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self) -> RwLockWriteGuard<'_, Breakpoints> {
        let breakpoints = self.breakpoints.write();
        breakpoints.unwrap_or_else(PoisonError::into_inner)
    }

    fn with_guest<R>(&self, act: impl FnOnce(&mut BreakpointTable, &mut GuestCode<'_>) -> R) -> R {
        self.ram.guard_accesses();
        let selected = self.vps.get(self.selected.index() as usize);
        let locations: Vec<CodeLocation> = selected
            .into_iter()
            .chain(&self.vps)
            .filter_map(|vp| vp.location)
            .collect();
        let mut breakpoints = self.change();
        let Breakpoints { table, bytes, .. } = &mut *breakpoints;
        let mut guest = GuestCode {
            ram: &self.ram,
            bytes,
            locations: &locations,
            int3: self.int3,
            walks: Walks::default(),
        };
        act(table, &mut guest)
    }

    /// The VPs whose location is not known, and is needed to arm or step over software breakpoints.
    pub(super) fn without_location(&self) -> Vec<VpIndex> {
        if !self.int3.anywhere() {
            return Vec::new();
        }
        let vps = (0..).map(VpIndex::new).zip(&self.vps);
        vps.filter(|(_, vp)| vp.location.is_none() && !vp.is_gone)
            .map(|(index, _)| index)
            .collect()
    }

    pub(super) fn set_location(&mut self, vp: VpIndex, location: CodeLocation) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.location = Some(location);
        }
    }

    /// Registers of the VP were written, so its location may have changed.
    pub(super) fn forget(&mut self, vp: VpIndex) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.location = None;
            vp.guest_registers = None;
        }
    }

    /// A VP has been added, or an index is used again.
    pub(super) fn join(&mut self, vp: VpIndex) {
        let index = vp.index() as usize;
        while self.vps.len() <= index {
            self.vps.push(ParkedAt::ABSENT);
        }
        self.vps[index] = ParkedAt::default();
    }

    /// The VP has gone. Nothing is left to ask it.
    pub(super) fn leave(&mut self, vp: VpIndex) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            *vp = ParkedAt::ABSENT;
        }
    }

    fn forget_all(&mut self) {
        for vp in &mut self.vps {
            vp.location = None;
            vp.guest_registers = None;
        }
    }

    /// The VP was entered.
    pub(super) fn entered(&mut self, vp: VpIndex) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.location = None;
            vp.guest_registers = None;
        }
    }

    /// The VP has parked.
    pub(super) fn parked(
        &mut self,
        vp: VpIndex,
        location: Option<CodeLocation>,
        guest_registers: Option<usize>,
    ) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.location = location;
            vp.guest_registers = guest_registers;
        }
    }

    /// The VPs for which the number of debug registers that the guest uses is not known.
    pub(super) fn uncounted(&self) -> Vec<VpIndex> {
        let vps = (0..).map(VpIndex::new).zip(&self.vps);
        vps.filter(|(_, vp)| vp.guest_registers.is_none() && !vp.is_gone)
            .map(|(index, _)| index)
            .collect()
    }

    pub(super) fn set_guest_registers(&mut self, vp: VpIndex, count: usize) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.guest_registers = Some(count);
        }
    }

    /// Leaves debug registers to the guest, on every VP as many as the guest uses on the VP on which it uses most.
    pub(super) fn leave_to_guest(&mut self) {
        let counts = self.vps.iter().filter_map(|vp| vp.guest_registers);
        let most = counts.max().unwrap_or(0);
        self.with_guest(|table, guest| table.leave_to_guest(guest, most));
    }

    /// Whether any of these changes is refused if no debug register is free.
    pub(super) fn needs_register(&self, changes: &[BreakpointChange]) -> bool {
        changes.iter().any(|change| match change {
            BreakpointChange::Insert(breakpoint) => {
                !breakpoint.kind.is_software() || !self.int3.anywhere()
            }
            BreakpointChange::Remove(_) => false,
            // The table refuses a change that it does not know.
            _ => false,
        })
    }

    /// Whether breakpoints compete with the guest for debug registers.
    pub(super) fn uses_registers(&self) -> bool {
        self.breakpoints().table.wants_registers()
    }

    /// A stop of this VP was reported.
    pub(super) fn select(&mut self, vp: VpIndex) {
        self.selected = vp;
    }

    /// Makes all changes in order. If one fails, makes none.
    pub(super) async fn apply(&mut self, changes: &[BreakpointChange]) -> Result<(), DebugError> {
        let mut made = Changes::default();
        let mut applied = Ok(());
        for slice in changes.chunks(SLICE) {
            applied = self.with_guest(|table, guest| table.apply(guest, slice, &mut made));
            if applied.is_err() {
                break;
            }
            yield_after(slice.len()).await;
        }
        if applied.is_ok() {
            self.forget_conditions();
        }
        while applied.is_err() && !made.is_empty() {
            self.with_guest(|table, guest| table.undo(guest, &mut made, SLICE));
            yield_after(SLICE).await;
        }
        applied
    }

    /// Forgets the conditions of breakpoints that were removed.
    fn forget_conditions(&self) {
        if self.breakpoints().conditions.is_empty() {
            return;
        }
        let mut breakpoints = self.change();
        let Breakpoints {
            table, conditions, ..
        } = &mut *breakpoints;
        conditions.keep(|breakpoint| table.contains(breakpoint));
    }

    /// Sets the conditions of a breakpoint. VPs may be in the guest, unless the guest is `stopped`.
    ///
    /// # Errors
    /// [`DebugError::NoSuchBreakpoint`], [`DebugError::BadCondition`].
    pub(super) fn set_conditions(
        &self,
        wanted: &BreakpointConditions,
        stopped: bool,
    ) -> Result<(), DebugError> {
        let mut breakpoints = self.change();
        let is_trace = wanted.breakpoint.kind == BreakpointKind::Trace;
        if is_trace || !breakpoints.table.contains(&wanted.breakpoint) {
            let address = wanted.breakpoint.address;
            return Err(DebugError::NoSuchBreakpoint { address });
        }
        let Breakpoints {
            conditions,
            counts,
            output,
            ..
        } = &mut *breakpoints;
        conditions.set(wanted, counts, output)?;
        if !stopped {
            conditions.come_into_force();
        }
        let breakpoint = &wanted.breakpoint;
        let is_passed = !wanted.conditions.is_empty() || !wanted.commands.is_empty();
        let executes = is_passed && !self.is_carried_out(&breakpoints, breakpoint);
        breakpoints.table.pass_by_executing(breakpoint, executes);
        Ok(())
    }

    /// Whether the instruction at the breakpoint is carried out in place of a VP. If that is not known, it is.
    pub(super) fn is_carried_out(
        &self,
        breakpoints: &Breakpoints,
        breakpoint: &Breakpoint,
    ) -> bool {
        let selected = self.vps.get(self.selected.index() as usize);
        let Some(location) = selected.and_then(|vp| vp.location) else {
            return true;
        };
        let location = CodeLocation {
            rip: breakpoint.address,
            ..location
        };
        let code = breakpoints.code_at(&self.ram, &location);
        can_carry_out(location.mode(), code.bytes())
    }

    /// What commands have printed.
    pub(super) fn output(&self) -> Arc<CommandOutput> {
        self.breakpoints().output.clone()
    }

    /// A stop is reported: counts the hit. Returns why the stop is one, if that is because a condition of the breakpoint cannot be evaluated.
    pub(super) fn stopped(&self, reason: &DebugStopReason) -> Option<String> {
        let (DebugStopReason::Breakpoint { vp, breakpoint }
        | DebugStopReason::Watchpoint { vp, breakpoint, .. }) = reason
        else {
            return None;
        };
        let mut breakpoints = self.change();
        breakpoints.counts.of(breakpoint).stopped();
        let failure = breakpoints.conditions.take_failure(*vp, breakpoint);
        failure.map(|failure| failure.to_string())
    }

    /// Verifies every software breakpoint, unless there are many and they were verified recently.
    pub(super) async fn reconcile(&mut self) {
        if !self.is_due() {
            return;
        }
        let started = Instant::now();
        let software = self.breakpoints().table.software();
        for slice in software.chunks(SLICE) {
            self.with_guest(|table, guest| table.reconcile(guest, slice));
            yield_after(slice.len()).await;
        }
        let at = Instant::now();
        self.reconciled = Some(Reconciled {
            at,
            took: at - started,
        });
    }

    /// Whether [`reconcile`](Self::reconcile) would verify the breakpoints.
    fn is_due(&self) -> bool {
        let recent =
            |last: Reconciled| last.at.elapsed() < ticker::PERIOD.max(last.took * PAUSE_FACTOR);
        self.breakpoints().table.len() <= VERIFIED_AT_EACH_ENTRY
            || !self.reconciled.is_some_and(recent)
    }

    /// Whether the guest has to be paused because [`reconcile`](Self::reconcile) would change a breakpoint. VPs may run.
    pub(super) fn needs_pause(&self) -> bool {
        if self.has_idle_tracepoints() {
            return true;
        }
        if !self.is_due() {
            return false;
        }
        let Breakpoints { table, bytes, .. } = &*self.breakpoints();
        table.has_unarmed() || bytes.is_any_overwritten(&*self.ram)
    }

    /// Whether breakpoints have to be checked while the guest runs.
    pub(super) fn needs_ticks(&self) -> bool {
        let Breakpoints { table, bytes, .. } = &*self.breakpoints();
        self.int3_exits == Int3Exits::On || !bytes.is_empty() || table.wants_registers()
    }

    /// Whether VPs have to leave the guest at each tick, for two reasons: to read the guest's debug registers, and to release interrupts that were held for
    /// the delivery of a guest exception that did not reach its handler.
    pub(super) fn needs_guest_registers_read(&self) -> bool {
        self.int3_exits == Int3Exits::On || self.uses_registers()
    }

    pub(super) fn stop_set(&mut self, step_interrupts: StepInterrupts) -> StopSet {
        if !self.breakpoints().bytes.is_empty() {
            self.int3_exits = Int3Exits::On;
        }
        self.change().conditions.come_into_force();
        StopSet {
            slots: self.breakpoints().table.slots(),
            int3_exits: self.int3_exits,
            step_interrupts,
        }
    }

    /// Which breakpoint the byte at this location belongs to. `None` if there is no breakpoint byte.
    fn byte_at(&self, location: &CodeLocation) -> Option<ByteOf> {
        let Breakpoints { table, bytes, .. } = &*self.breakpoints();
        if bytes.is_empty() {
            return None;
        }
        let gpa = location.rip_gpa(&*self.ram)?;
        match (bytes.is_armed(gpa), table.at_byte(location.rip, gpa)) {
            (false, _) => None,
            (true, Some(_)) => Some(ByteOf::ThisAddress),
            // The debug register of this address fires before the byte.
            (true, None) if table.has_register_at(location.rip) => Some(ByteOf::ThisAddress),
            (true, None) => Some(ByteOf::OtherAddress),
        }
    }

    /// The breakpoint that a VP at this location hits.
    pub(super) fn hit_at(&self, location: &CodeLocation) -> Option<Breakpoint> {
        let Breakpoints {
            table,
            bytes,
            conditions,
            ..
        } = &*self.breakpoints();
        let gpa = location.rip_gpa(&*self.ram);
        let armed = gpa.filter(|gpa| bytes.is_armed(*gpa));
        let byte = armed.and_then(|gpa| table.at_byte(location.rip, gpa));
        // A debug register fires before a byte, as in the guest.
        let here = table.on_register_at(&self.ram, location).or(byte);
        // The VP evaluates the conditions when it meets the breakpoint.
        here.filter(|breakpoint| conditions.of(breakpoint).is_none())
    }

    /// The VPs with a breakpoint byte at their RIP.
    pub(super) fn vps_at_bytes(&self) -> Vec<VpAtByte> {
        let vps = (0..).map(VpIndex::new).zip(&self.vps);
        let on_byte = |(vp, known): (VpIndex, &ParkedAt)| {
            let location = known.location?;
            let of = self.byte_at(&location)?;
            let code = self.breakpoints().code_at(&self.ram, &location);
            let emulation = match can_carry_out(location.mode(), code.bytes()) {
                true => Emulation::Possible,
                false => Emulation::Impossible,
            };
            let byte = ByteAtRip { of, emulation };
            Some(VpAtByte { vp, byte })
        };
        vps.filter_map(on_byte).collect()
    }

    /// Removes all breakpoints from the guest (I6).
    pub(super) fn release(&mut self) {
        self.int3_exits = Int3Exits::Off;
        self.traces = false;
        let mut breakpoints = self.change();
        breakpoints.table.clear();
        breakpoints.conditions = Conditions::default();
        breakpoints.counts = HitCounts::default();
        breakpoints.output.clear();
        breakpoints.trace.stop(TraceState::Disconnected);
        breakpoints.bytes.clear(&*self.ram);
    }

    /// Removes the breakpoint bytes from memory and forgets the locations of the VPs, before the machine is reset.
    pub(super) fn before_reset(&mut self) {
        self.with_guest(BreakpointTable::before_reset);
        self.forget_all();
        self.reconciled = None;
    }
}

impl Drop for BreakpointControl {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::PagingLimits;
    use crate::arch::PagingState;
    use std::pin::pin;
    use std::task::Context;
    use std::task::Waker;
    use vmm_core_defs::addr::Gva;

    const SLICES: usize = 3;

    /// The output of the future, and how often the future has yielded before.
    fn turns<R>(future: impl Future<Output = R>) -> (R, usize) {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        let mut turns = 0;
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(value) => return (value, turns),
                Poll::Pending => turns += 1,
            }
        }
    }

    fn breakpoint_control(limit: usize) -> BreakpointControl {
        let ram = MemorySlots::zeroed(&[(0, 1 << 20)]);
        let limit = u32::try_from(limit).expect("a small limit");
        let breakpoints = Breakpoints {
            table: BreakpointTable::new(limit),
            ..Breakpoints::default()
        };
        let (ram, breakpoints) = (ram, RwLock::new(breakpoints));
        let int3 = Int3Traps::EVERYWHERE;
        let mut control = BreakpointControl::new(Arc::new(ram), Arc::new(breakpoints), int3, 1);
        let real_mode = CodeLocation {
            rip: Gva::new(0),
            paging: PagingState {
                cr0: 0x10,
                cr3: 0,
                cr4: 0,
                efer: 0,
                limits: PagingLimits::new(40, true),
            },
            user: false,
        };
        control.set_location(VpIndex::BSP, real_mode);
        control
    }

    fn inserts(count: usize) -> Vec<BreakpointChange> {
        let addresses = (0x1000..).map(Gva::new).take(count);
        let breakpoint = |address| Breakpoint {
            kind: BreakpointKind::Software,
            address,
            len: 1,
        };
        addresses
            .map(|address| BreakpointChange::Insert(breakpoint(address)))
            .collect()
    }

    #[test]
    fn others_have_their_turn_between_the_slices_of_a_long_change_and_of_a_long_look() {
        let mut control = breakpoint_control(SLICES * SLICE);
        let (applied, others) = turns(control.apply(&inserts(SLICES * SLICE)));
        assert_eq!((applied, others), (Ok(()), SLICES));
        let ((), others) = turns(control.reconcile());
        assert_eq!(others, SLICES);
        assert_eq!(control.breakpoints().table.len(), SLICES * SLICE);
    }

    #[test]
    fn a_long_change_that_fails_at_its_end_leaves_nothing_and_is_taken_back_in_slices() {
        let mut control = breakpoint_control(SLICES * SLICE);
        let (applied, others) = turns(control.apply(&inserts(SLICES * SLICE + 1)));
        let limit = 3072;
        assert_eq!(applied, Err(DebugError::TooManyBreakpoints { limit }));
        assert_eq!(others, 2 * SLICES);
        let Breakpoints { table, bytes, .. } = &*control.breakpoints();
        assert!(table.len() == 0 && bytes.is_empty());
    }

    #[test]
    fn a_short_change_is_made_at_once() {
        let mut control = breakpoint_control(SLICE);
        assert_eq!(turns(control.apply(&inserts(4))), (Ok(()), 0));
    }
}
